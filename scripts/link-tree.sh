#!/bin/sh
# Lay the packages out as they install, for tools that cannot read pyproject's folder map.
set -eu
tree=build/tree/interv
rm -rf build/tree
mkdir -p "$tree"
for file in interv/*; do
    case $file in */__pycache__) ;; *) ln -s "../../../$file" "$tree/" ;; esac
done
for stage in dsl passes codegen runtime; do
    ln -s "../../../$stage" "$tree/$stage"
done
