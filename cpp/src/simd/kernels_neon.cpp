// The kernels for NEON.
#include "../kernels.cpp"
