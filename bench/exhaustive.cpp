// Measures exp and log1p of one instruction set against wider arithmetic: exp of every float32 in its range, float64 exp and
// log1p on dense random points. Prints the largest error of each in ULP, and where. Built and run by bench/exhaustive.py.
//
// The functions are compiled as kernels.cpp has them, with the flags of its instruction set; the reference must be long double
// of more digits than double (x86-64, or AArch64 under Linux).
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "kernels.hpp"
#include "simd/compiler.hpp"

namespace crossent {
namespace CROSSENT_TARGET {
namespace {

// clang-format off: each header uses those before it; the first of those in kernels.cpp
#include "simd/vec.hpp"
#include "simd/subnormal.hpp"
#include "kernels/vectors.hpp"
#include "kernels/exp.hpp"
#include "kernels/log1p.hpp"
// clang-format on

}  // namespace
}  // namespace CROSSENT_TARGET
}  // namespace crossent

namespace target = crossent::CROSSENT_TARGET;

namespace {

static_assert(std::numeric_limits<long double>::digits > 60, "the reference must be wider than double");

// --- the kernels' functions, one vector at a time; what a change of kernels/ has to adapt ----------------------------

template <class T>
constexpr int kLanes = target::Vec<T>::kLanes;
// The range that matters: probabilities round to 0 below it, and exp is taken of at most 40.
template <class T>
constexpr T kExpSmallest = sizeof(T) == 4 ? -104 : -746;
template <class T>
constexpr T kExpLargest = 40;
template <class T>
constexpr int kExpBias = target::ExpConstants<T>::bias;

template <class T>
void exp_biased(const T* high, const T* low, T* result) {
  target::store(result, target::exp_biased<T>({target::load(high), target::load(low)}));
}

// exp(x - origin), the origin being the first of the latter.
template <class T>
void relative_exp(const T* x, const T* origin, T* result) {
  const target::Exponential<T> exponential(target::splat(origin[0]));
  target::store(result, exponential(target::load(x)));
}
template <class T>
constexpr T kLargestOrigin = target::ExpConstants<T>::largest_origin;

void log1p(const double* high, const double* low, double* result) {
  target::store(result, target::log1p<true>({target::load(high), target::load(low)}));
}
void log1p_for_float(const double* x, const double*, double* result) {
  target::store(result, target::log1p_for_float(target::load(x)));
}

// --- errors -----------------------------------------------------------------------------------------------------------

struct Worst {
  double ulps = 0, high = 0, low = 0;
  unsigned long long points = 0;

  // `unit`: the spacing of T at the exact result.
  void add(long double actual, long double exact, long double unit, double at_high, double at_low) {
    const double error = static_cast<double>(std::fabs(actual - exact) / unit);
    ++points;
    if (std::isnan(ulps) || error <= ulps) return;  // a NaN is taken, and then stays
    ulps = error;
    high = at_high;
    low = at_low;
  }

  void print(const char* function, const char* range) const {
    std::printf("| %-32s | %-24s | %12llu | %.4f | %a + %a |\n", function, range, points, ulps, high, low);
    std::fflush(stdout);
  }
};

template <class T, class Wide>
Wide spacing_at(Wide exact) {
  int exponent;
  std::frexp(exact, &exponent);
  return std::ldexp(Wide(1), exponent - std::numeric_limits<T>::digits);
}

template <class T, class Wide>
void check_exp(const T* high, const T* low, Worst& worst) {
  T result[kLanes<T>];
  exp_biased(high, low, result);
  for (int i = 0; i < kLanes<T>; ++i) {
    Wide exact = std::exp(static_cast<Wide>(high[i]));
    if (low[i] != 0) exact *= std::exp(static_cast<Wide>(low[i]));  // the sum of both has more digits than Wide
    const Wide unbiased = std::ldexp(static_cast<Wide>(result[i]), -kExpBias<T>);
    worst.add(unbiased, exact, spacing_at<T>(exact), high[i], low[i]);
  }
}

// --- points -----------------------------------------------------------------------------------------------------------

// SplitMix64.
struct Random {
  std::uint64_t state;
  std::uint64_t integer() {
    std::uint64_t x = state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  double between(double first, double last) {
    return first + (last - first) * (static_cast<double>(integer() >> 11) * 0x1p-53);
  }
  // What a rounding to the nearest may leave of a number beside `high`.
  template <class T>
  T low_part(T high) {
    return static_cast<T>(between(-0.5, 0.5) * static_cast<double>(spacing_at<T>(high)));
  }
};

float from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
std::uint32_t to_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Every `every`-th float32 from 0 to `last`, which may be negative.
Worst every_float(float last, std::uint32_t every) {
  const std::uint32_t sign = to_bits(last) & 0x80000000u, end = to_bits(last) & 0x7fffffffu;
  float high[kLanes<float>];
  const float low[kLanes<float>] = {};
  Worst worst;
  for (std::uint64_t bits = 0; bits <= end;) {
    for (float& lane : high) {
      lane = from_bits(sign | static_cast<std::uint32_t>(bits <= end ? bits : end));
      bits += every;
    }
    check_exp<float, double>(high, low, worst);
  }
  return worst;
}

template <class T, class Wide>
Worst random_exp(unsigned long long points, bool with_low) {
  Random random{1};
  T high[kLanes<T>], low[kLanes<T>] = {};
  Worst worst;
  while (worst.points < points) {
    for (int i = 0; i < kLanes<T>; ++i) {
      high[i] = static_cast<T>(random.between(kExpSmallest<T>, kExpLargest<T>));
      if (with_low) low[i] = random.low_part(high[i]);
    }
    check_exp<T, Wide>(high, low, worst);
  }
  return worst;
}

// exp(x - origin) for origins of any size up to the largest, of which the exponent is evenly distributed; and for x of any size
// down to the smallest, at the largest distance from which the rounding of what is left of x - origin matters.
template <class T, class Wide>
Worst random_relative_exp(unsigned long long points) {
  Random random{3};
  T x[kLanes<T>], origin[kLanes<T>], result[kLanes<T>];
  Worst worst;
  while (worst.points < points) {
    const double size = std::exp2(random.between(-10, std::log2(static_cast<double>(kLargestOrigin<T>))));
    origin[0] = static_cast<T>(random.integer() % 2 ? size : -size);
    for (int i = 0; i < kLanes<T>; ++i) {
      const double distance = random.between(kExpSmallest<T>, 0), small = std::exp2(random.between(-40, 3));
      x[i] = static_cast<T>(static_cast<double>(origin[0]) + distance);
      if (i % 2 && origin[0] > small) x[i] = static_cast<T>(random.integer() % 2 ? small : -small);
      if (static_cast<double>(x[i]) - static_cast<double>(origin[0]) < kExpSmallest<T>) x[i] = origin[0];
    }
    relative_exp(x, origin, result);
    for (int i = 0; i < kLanes<T>; ++i) {
      const Wide exact = std::exp(static_cast<Wide>(x[i]) - static_cast<Wide>(origin[0]));
      const Wide unbiased = std::ldexp(static_cast<Wide>(result[i]), -kExpBias<T>);
      worst.add(unbiased, exact, spacing_at<T>(exact), x[i], -origin[0]);
    }
  }
  return worst;
}

// The ranges of exp's arguments in words.
template <class T>
struct ExpRanges {
  char negative[32], positive[32], random[32];
  ExpRanges() {
    const double first = kExpSmallest<T>, last = kExpLargest<T>;
    std::snprintf(negative, sizeof negative, "[%g, -0]", first);
    std::snprintf(positive, sizeof positive, "[0, %g]", last);
    std::snprintf(random, sizeof random, "[%g, %g], random", first, last);
  }
};

// x with an evenly distributed logarithm to base 2.
using Log1p = void(const double* high, const double* low, double* result);
Worst random_log1p(Log1p& function, unsigned long long points, double first, double last, bool with_low) {
  Random random{2};
  double high[kLanes<double>], low[kLanes<double>] = {}, result[kLanes<double>];
  Worst worst;
  while (worst.points < points) {
    for (int i = 0; i < kLanes<double>; ++i) {
      high[i] = std::exp2(random.between(first, last));
      if (with_low) low[i] = random.low_part(high[i]);
    }
    function(high, low, result);
    for (int i = 0; i < kLanes<double>; ++i) {
      const long double exact = std::log1p(static_cast<long double>(high[i]) + static_cast<long double>(low[i]));
      worst.add(result[i], exact, spacing_at<double>(exact), high[i], low[i]);
    }
  }
  return worst;
}

}  // namespace

// Arguments: every how many-th float32 (1: all of them), and how many random points for each of the others.
int main(int count, char** argument) {
  if (count != 3) {
    std::fprintf(stderr, "usage: %s EVERY POINTS\n", argument[0]);
    return 2;
  }
  const auto every = static_cast<std::uint32_t>(std::strtoul(argument[1], nullptr, 10));
  const unsigned long long points = std::strtoull(argument[2], nullptr, 10);
  if (every == 0 || points == 0) {
    std::fprintf(stderr, "EVERY and POINTS must be positive\n");
    return 2;
  }
  const ExpRanges<float> range;
  const ExpRanges<double> range64;
  every_float(kExpSmallest<float>, every).print("exp, float32", range.negative);
  every_float(kExpLargest<float>, every).print("exp, float32", range.positive);
  random_exp<float, double>(points, true).print("exp of a pair, float32", range.random);
  random_exp<double, long double>(points, false).print("exp, float64", range64.random);
  random_exp<double, long double>(points, true).print("exp of a pair, float64", range64.random);
  random_relative_exp<float, double>(points).print("exp(x - origin), float32", "random");
  random_relative_exp<double, long double>(points).print("exp(x - origin), float64", "random");
  random_log1p(log1p, points, -1000, 64, false).print("log1p, float64", "[2**-1000, 2**64], random");
  random_log1p(log1p, points, -10, 10, false).print("log1p, float64", "[2**-10, 2**10], random");
  random_log1p(log1p, points, -10, 10, true).print("log1p of a pair, float64", "[2**-10, 2**10], random");
  random_log1p(log1p_for_float, points, -1000, 64, false).print("log1p for float32, float64", "[2**-1000, 2**64], random");
  random_log1p(log1p_for_float, points, -10, 10, false).print("log1p for float32, float64", "[2**-10, 2**10], random");
  return 0;
}
