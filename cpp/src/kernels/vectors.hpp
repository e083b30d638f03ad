// Several vectors at once: every operation on all of them before the next. One after the other, each a chain of fifteen
// operations, they would fill the processor's scheduler with what waits for the others (exponentials of a block, four at once:
// 45 -> 36 cycles for 64 floats on Sapphire Rapids).
#pragma once

template <class T, int N>
struct Vectors {
  Vec<T> of[N];
};
template <class T>
using Four = Vectors<T, 4>;

template <class T, int N, class F>
CROSSENT_INLINE Vectors<T, N> each_of(F&& f) {
  if constexpr (N == 1) {
    return {{f(0)}};
  } else if constexpr (N == 2) {
    return {{f(0), f(1)}};
  } else {
    static_assert(N == 4, "");
    return {{f(0), f(1), f(2), f(3)}};
  }
}
template <class T, class F>
CROSSENT_INLINE Four<T> each_of_four(F&& f) {
  return each_of<T, 4>(f);
}

// Number i of them, or the one that is for all.
template <class T, int N>
CROSSENT_INLINE const Vec<T>& at(const Vectors<T, N>& a, int i) {
  return a.of[i];
}
template <class T>
CROSSENT_INLINE const Vec<T>& at(const Vec<T>& a, int) {
  return a;
}

#define CROSSENT_VECTORS(op)                                                          \
  template <class T, int N, class B>                                                  \
  CROSSENT_INLINE Vectors<T, N> operator op(const Vectors<T, N>& a, const B& b) {     \
    return each_of<T, N>([&](int i) CROSSENT_LAMBDA { return a.of[i] op at(b, i); }); \
  }
CROSSENT_VECTORS(+)
CROSSENT_VECTORS(-)
CROSSENT_VECTORS(*)
#undef CROSSENT_VECTORS
template <class T, int N>
CROSSENT_INLINE Vectors<T, N> operator-(const Vec<T>& a, const Vectors<T, N>& b) {
  return each_of<T, N>([&](int i) CROSSENT_LAMBDA { return a - b.of[i]; });
}

template <class T, int N, class B, class C>
CROSSENT_INLINE Vectors<T, N> fma(const Vectors<T, N>& a, const B& b, const C& c) {
  return each_of<T, N>([&](int i) CROSSENT_LAMBDA { return fma(a.of[i], at(b, i), at(c, i)); });
}
template <class T, int N, class A>
CROSSENT_INLINE Vectors<T, N> max_or_second(const A& a, const Vectors<T, N>& b) {
  return each_of<T, N>([&](int i) CROSSENT_LAMBDA { return max_or_second(at(a, i), b.of[i]); });
}
template <class T, int N, class A>
CROSSENT_INLINE Vectors<T, N> smaller(const A& a, const Vectors<T, N>& b) {
  return each_of<T, N>([&](int i) CROSSENT_LAMBDA { return smaller(at(a, i), b.of[i]); });
}
template <class T, int N>
CROSSENT_INLINE Vectors<T, N> power_of_two(const Vectors<T, N>& shifter) {
  return each_of<T, N>([&](int i) CROSSENT_LAMBDA { return power_of_two(shifter.of[i]); });
}

template <int N, class S>
CROSSENT_INLINE Vectors<Compute<S>, N> load_several(const S* p) {
  return each_of<Compute<S>, N>([&](int i) CROSSENT_LAMBDA { return load(p + i * Vec<Compute<S>>::kLanes); });
}
template <class S>
CROSSENT_INLINE Four<Compute<S>> load_four(const S* p) {
  return load_several<4>(p);
}
template <class S>
CROSSENT_INLINE void store_four(S* p, const Four<Compute<S>>& a) {
  store_pair(p, a.of[0], a.of[1]);
  store_pair(p + 2 * Vec<Compute<S>>::kLanes, a.of[2], a.of[3]);
}
