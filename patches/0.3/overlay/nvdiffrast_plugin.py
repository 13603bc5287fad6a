"""An alias of nvdiffrast's compiled CUDA plugin, for programs that import it by this name."""

import sys

from nvdiffrast.torch import ops

sys.modules[__name__] = ops._get_plugin()
