// Stands in front of torch's own <torch/extension.h>, which takes half a minute to parse, for the two generated translation
// units of a build: each gets what nvdiffrast's files use, from torch's own headers, and nothing else.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/Logging.h>
#ifdef NVDR_WHEEL_BINDINGS
#include <torch/csrc/utils/pybind.h>
#else
#include <torch/csrc/autograd/generated/variable_factories.h>
#endif
// As <torch/types.h> has it.
namespace torch {
using namespace at;
constexpr auto kFloat32 = at::kFloat;
constexpr auto kInt32 = at::kInt;
}
