"""An alias of nvdiffrast's compiled extension module, for programs that import it by this name."""

import sys

from nvdiffrast.torch import ops

sys.modules[__name__] = ops._nvdiffrast_c
