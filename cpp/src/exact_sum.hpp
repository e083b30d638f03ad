// Sums of float64 numbers without rounding, so that order, grouping and threads cannot change a result.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace crossent {

// A number as an array of 32-bit digits over the whole range of float64 (a "superaccumulator"): adding is exact, so adding
// is associative. After Neal, "Fast exact summation using small and large superaccumulators" (2015).
class ExactSum {
 public:
  void add(double value) {
    std::uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const int exponent = static_cast<int>(bits >> 52) & 2047;
    if (exponent == 2047) {
      special_ += value;
      return;
    }
    // value = magnitude * 2**(position - kOffset); a subnormal has the exponent of the smallest normal number.
    const std::uint64_t fraction = bits & ((std::uint64_t{1} << 52) - 1);
    const std::uint64_t magnitude = exponent ? fraction | (std::uint64_t{1} << 52) : fraction;
    if (magnitude == 0) return;
    const unsigned position = static_cast<unsigned>((exponent ? exponent : 1) - 1075 + kOffset);
    const int digit = static_cast<int>(position / 32), shift = static_cast<int>(position % 32);
    // A 53-bit number shifted by up to 31 spans three digits.
    const std::int64_t sign = bits >> 63 ? -1 : 1;
    const std::uint64_t low = magnitude << shift;
    const std::uint64_t high = shift ? magnitude >> (64 - shift) : 0;
    use(digit, digit + 3);
    digit_[digit] += sign * static_cast<std::int64_t>(low & 0xffffffffu);
    digit_[digit + 1] += sign * static_cast<std::int64_t>(low >> 32);
    digit_[digit + 2] += sign * static_cast<std::int64_t>(high);
    if (++pending_ == kCarryEvery) carry();
  }

  void add(const ExactSum& other) {
    special_ += other.special_;
    use(other.first_, other.last_);
    for (int i = other.first_; i < other.last_; ++i) digit_[i] += other.digit_[i];
    pending_ += other.pending_ + 1;
    if (pending_ >= kCarryEvery) carry();
  }

  // The finite part of the sum in 32-bit digits, from the weight 2**-kOffset up, all but the last one in [0, 2**32); and what
  // infinities and NaN add up to.
  std::vector<std::int64_t> digits() const {
    ExactSum normal = *this;
    normal.carry();
    return std::vector<std::int64_t>(normal.digit_, normal.digit_ + kDigits);
  }
  double special() const { return special_; }

  // The sum times 2**-scale_by, rounded to the nearest float64 (within one part in 2**63 of a tie).
  double value(int scale_by = 0) const {
    if (special_ != 0) return special_;
    ExactSum normal = *this;
    normal.carry();
    // After the carries all digits but the top one are in [0, 2**32). A negative sum is negated first, for digits of one sign.
    int top = normal.top();
    const bool negative = normal.digit_[top] < 0;
    if (negative) {
      for (int i = normal.first_; i < normal.last_; ++i) normal.digit_[i] = -normal.digit_[i];
      normal.carry();
      top = normal.top();
    }
    // Three digits hold at least 65 bits; what lies below only breaks ties.
    std::uint64_t rest = 0;
    for (int i = normal.first_; i < top - 2; ++i) rest |= static_cast<std::uint64_t>(normal.digit_[i]);
    std::uint64_t digits[3] = {};
    for (int i = 0; i < 3; ++i) digits[i] = top - i >= 0 ? static_cast<std::uint64_t>(normal.digit_[top - i]) : 0;
    std::uint64_t head = (digits[0] << 32) | digits[1];
    int scale = (top - 1) * 32 - kOffset - scale_by;
    if (head == 0 && digits[2] == 0) return 0;
    std::uint64_t tail = digits[2];
    while (!(head >> 63)) {
      head = (head << 1) | (tail >> 31);
      tail = (tail << 1) & 0xffffffffu;
      --scale;
    }
    if (tail | rest) head |= 1;  // sticky: head has 64 bits, the result 53
    const double magnitude = std::ldexp(static_cast<double>(head >> 32), scale + 32);
    // The upper 32 bits are exact, and so is the rest below; their sum rounds once.
    const double result = magnitude + std::ldexp(static_cast<double>(head & 0xffffffffu), scale);
    return negative ? -result : result;
  }

  // The sum over a positive divisor, also where only the sum is beyond the largest float64.
  double quotient(double divisor) const {
    const double sum = value();
    if (special_ != 0 || std::isfinite(sum)) return sum / divisor;
    return std::ldexp(value(kHeadroom) / divisor, kHeadroom);
  }

  static constexpr int kOffset = 1074 + 64;  // the weight of digit 0 is 2**-kOffset

 private:
  static constexpr int kDigits = (1024 + kOffset) / 32 + 4;
  static constexpr int kCarryEvery = 1 << 29;
  static constexpr int kHeadroom = 64;  // 2**64 float64 numbers are no more than 2**kHeadroom times the largest one

  // Digits first, …, last - 1 may be others than 0 from now on.
  void use(int first, int last) {
    first_ = first < first_ ? first : first_;
    last_ = last > last_ ? last : last_;
  }
  // The highest digit that is not 0, or 0.
  int top() const {
    int i = last_;
    while (i > 0 && digit_[i - 1] == 0) --i;
    return i > 0 ? i - 1 : 0;
  }
  void carry() {
    for (int i = first_; i < last_ && i + 1 < kDigits; ++i) {
      const std::int64_t up = digit_[i] >> 32;  // floor
      if (up == 0) continue;                    // predicted, where additions would wait for each other
      digit_[i + 1] += up;
      digit_[i] -= up * (std::int64_t{1} << 32);
      use(i, i + 2);
    }
    pending_ = 0;
  }

  // Less than 2**32 times pending_ + 1, all but the last one.
  std::int64_t digit_[kDigits] = {};
  int first_ = kDigits, last_ = 0;  // the digits in use, few but in negative sums: others take no time
  double special_ = 0;              // infinities and NaN
  int pending_ = 0;
};

}  // namespace crossent
