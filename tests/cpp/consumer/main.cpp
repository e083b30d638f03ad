// A user's program: one worked example, and the version.
#include <cmath>
#include <cstdio>
#include <string>

#include "crossent/crossent.hpp"

int main(int argc, char** argv) {
  const double logits[4] = {0, 0, 0, 1};
  const long long target = 3;
  double loss = 0;
  crossent::LossResult result;
  result.loss = &loss;
  const crossent::Status status =
      crossent::cross_entropy(crossent::ConstDense(logits, {4}), crossent::ConstDense(&target, {}), {}, result);
  if (!status) {
    std::fprintf(stderr, "%s\n", status.message.c_str());
    return 1;
  }
  std::printf("crossent %s on %s: %.4f\n", crossent::version(), crossent::simd_target().c_str(), loss);
  const bool right_version = argc < 2 || std::string(argv[1]) == crossent::version();
  return std::fabs(loss - 0.7437) < 5e-5 && right_version ? 0 : 1;
}
