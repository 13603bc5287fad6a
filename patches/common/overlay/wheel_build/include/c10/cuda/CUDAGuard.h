// The bindings include this through framework.h and use nothing of it.
#pragma once
#ifndef NVDR_WHEEL_BINDINGS
#include_next <c10/cuda/CUDAGuard.h>
#endif
