// The kernels for AVX-512.
#include "../kernels.cpp"
