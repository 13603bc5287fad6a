// nvdiffrast includes <pybind11/numpy.h> everywhere and uses nothing of it. Without it the objects of the host files do not
// depend on Python, and one compilation serves every Python.
#pragma once
