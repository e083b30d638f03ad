// Lanes of native vectors of any width in another order, spelled out for the compiler.
#pragma once

// Lane i of the result is lane i ^ step.
template <int step, class Native>
CROSSENT_INLINE Native exchange(Native a) {
  constexpr int lanes = sizeof(Native) / sizeof(a[0]);
  if constexpr (lanes == 2) {
    return __builtin_shufflevector(a, a, 0 ^ step, 1 ^ step);
  } else if constexpr (lanes == 4) {
    return __builtin_shufflevector(a, a, 0 ^ step, 1 ^ step, 2 ^ step, 3 ^ step);
  } else if constexpr (lanes == 8) {
    return __builtin_shufflevector(a, a, 0 ^ step, 1 ^ step, 2 ^ step, 3 ^ step, 4 ^ step, 5 ^ step, 6 ^ step, 7 ^ step);
  } else {
    return __builtin_shufflevector(a, a, 0 ^ step, 1 ^ step, 2 ^ step, 3 ^ step, 4 ^ step, 5 ^ step, 6 ^ step, 7 ^ step,
                                   8 ^ step, 9 ^ step, 10 ^ step, 11 ^ step, 12 ^ step, 13 ^ step, 14 ^ step, 15 ^ step);
  }
}

// The lanes of two vectors that stand at even and at odd places; and back: those of one after those of the other, in turns.
template <int odd, class Native>
CROSSENT_INLINE Native every_second(Native a, Native b) {
  constexpr int lanes = sizeof(Native) / sizeof(a[0]);
  if constexpr (lanes == 4) {
    return __builtin_shufflevector(a, b, odd, odd + 2, odd + 4, odd + 6);
  } else if constexpr (lanes == 8) {
    return __builtin_shufflevector(a, b, odd, odd + 2, odd + 4, odd + 6, odd + 8, odd + 10, odd + 12, odd + 14);
  } else {
    return __builtin_shufflevector(a, b, odd, odd + 2, odd + 4, odd + 6, odd + 8, odd + 10, odd + 12, odd + 14, odd + 16,
                                   odd + 18, odd + 20, odd + 22, odd + 24, odd + 26, odd + 28, odd + 30);
  }
}
template <int first, class Native>
CROSSENT_INLINE Native in_turns(Native a, Native b) {
  constexpr int lanes = sizeof(Native) / sizeof(a[0]), i = first * lanes / 2, j = i + lanes;
  if constexpr (lanes == 4) {
    return __builtin_shufflevector(a, b, i, j, i + 1, j + 1);
  } else if constexpr (lanes == 8) {
    return __builtin_shufflevector(a, b, i, j, i + 1, j + 1, i + 2, j + 2, i + 3, j + 3);
  } else {
    return __builtin_shufflevector(a, b, i, j, i + 1, j + 1, i + 2, j + 2, i + 3, j + 3, i + 4, j + 4, i + 5, j + 5, i + 6,
                                   j + 6, i + 7, j + 7);
  }
}
