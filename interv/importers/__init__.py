"""Documents from the specs of other systems: EasySteer, chatspace and RhizoNymph.

`import_file` maps a file to a document that does the same, or says why it cannot; `write_import`
writes the document and its arrays.
"""

from interv.importers.draft import Options
from interv.importers.formats import FORMATS
from interv.importers.imported import Imported, import_file, write_import

__all__ = ["FORMATS", "Imported", "Options", "import_file", "write_import"]
