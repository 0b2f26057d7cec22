"""Tolerances of the tests, each with its reason; the same in CI and at home."""

# Two orders of summing the same float64 numbers, relative to the largest number that takes part.
# Each of up to 12 edits rounds a few times at 2**-53, and a cap or an ablation that follows a
# steer hands the error on, so that errors add up over edits: 12 edits x 16 roundings x 1.1e-16
# is 2e-14, and width enters by its root. A factor of 5 for unlucky sums.
FLOAT64 = 1e-13

# A bundle holds its directions in float32, so against a float64 program each component of a
# direction is off by 2**-24 of itself, 6e-8. Columns hand errors on as above: 12 columns, each
# off by its read direction and its written one, is 24 x 6e-8 = 1.4e-6.
FLOAT32_BANK = 2e-6

# A slot holds scalars in float32 beside such a bank: 12 columns of several programs, each off by
# its scale, its multiplier and their product, 36 x 6e-8 = 2.2e-6, and by the directions as above.
FLOAT32_SLOT = FLOAT32_BANK + 2.5e-6

# An update in a stream of bf16 (8 bits) is rounded once, at the end: half a unit in the last
# place is 2**-9 of the largest magnitude; a further 2**-9 for the rounding of the input to fp32
# arithmetic taking another branch next to a tie.
BFLOAT16 = 2**-8

# Triton's interpreter cuts the low half of a float32 off where a GPU rounds to nearest: a whole
# unit in the last place, 2**-7.
INTERPRETED_BFLOAT16 = 2**-7

# float16 has 11 bits: as above.
FLOAT16 = 2**-11

# One rounding of fp32 a step, dots over H <= 4096 elements: relative error about sqrt(H) * 2**-24.
FLOAT32 = 1e-5

# Log-probabilities of two fp32 implementations of the same model, 30 layers of other summation
# orders: measured at 1e-6 to 3e-5, an edit left out or put a block off moves them by far more.
ENGINE_LOGPROB = 1e-3

# A sequence of six edits in float64 against one update from dots and a Gram: sums as in FLOAT64,
# on streams of up to 10. A steer that keeps the norm divides by what a replacement has left, down
# to a hundredth of the stream, and hands the error on by as much: 1e-13 x 10 x 1e2.
SEQUENCE = 1e-10

# Cyclic projections end at a step of 2**-22 (2.4e-7) of the largest reading, which is up to 5.
# Directions that lean on each other by up to 0.8 leave 0.64 of the distance each sweep, so that
# three such steps are still to go, in each of four columns: 2.4e-7 x 5 x 3 x 2 in the norm.
JOINT = 1e-5

# Rows of the residual stream of two fp32 implementations of one model, of up to 4 blocks and
# elements of up to 10: other summation orders, measured at 1e-6 to 1e-5.
CAPTURED = 1e-4

# The same for SmolLM2, whose stream has elements of up to 1e4 after some blocks: measured at
# about 1e-2 on those.
SMOLLM2_ROWS = 5e-2

# The stream itself between the same two implementations, relative to its norm: sums of up to 1536
# products in another order, in 30 layers. Measured at 1.5e-6.
ENGINE_STREAM = 2e-5
