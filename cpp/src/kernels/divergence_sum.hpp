// The sums over the classes of two rows that their KL divergence and its gradient are made of: of e_p, of e_q and of
// e_p * (a_p - a_q), where a = (x - max) / T and e = exp(a) of either row.
#pragma once

// What differences of logits are multiplied by: 1 / temperature, as a pair, and its larger part in two halves.
template <class T>
struct Tempering {
  static constexpr T splitter = sizeof(T) == 4 ? (T)0x1p12 + 1 : (T)0x1p27 + 1;
  Vec<T> high, low, upper, lower;
  bool is_one;  // T = 1: nothing to do, and the same bits as if it were done
  CROSSENT_INLINE explicit Tempering(Pair<double> inverse) : is_one(inverse.high == 1 && inverse.low == 0) {
    const T h = (T)inverse.high, up = h * splitter - (h * splitter - h);
    high = splat(h);
    low = splat((T)((inverse.high - (double)h) + inverse.low));
    upper = splat(up);
    lower = splat((T)(h - up));
  }
};

// (x - m) / T with its rounding error, that of the product by Dekker's method where there is no FMA.
template <class T>
CROSSENT_INLINE Pair<Vec<T>> tempered_difference(Vec<T> x, Vec<T> m, const Tempering<T>& t) {
  const Pair<Vec<T>> d = two_sum(x, zero<T>() - m);
  if (t.is_one) return d;
  const Vec<T> scaled = d.high * t.high;
  Vec<T> lost;
  if constexpr (kHasFma) {
    lost = fma(d.high, t.high, zero<T>() - scaled);
  } else {
    const Vec<T> shifted = d.high * splat(t.splitter), upper = shifted - (shifted - d.high), lower = d.high - upper;
    lost = ((upper * t.upper - scaled) + upper * t.lower + lower * t.upper) + lower * t.lower;
  }
  return {scaled, lost + (d.high * t.low + d.low * t.high)};
}

// The exponential of a difference that is known with its rounding error.
template <class T>
CROSSENT_INLINE Vec<T> exp_of(Pair<Vec<T>> d) {
  return select(d.high >= splat(ExpConstants<T>::floor), exp_biased(d), max_or_second(zero<T>(), d.high));
}

// Rows whose third sum is not finite are read once more with log-ratios times this, so small that no sum of such products of
// exponentials (up to 2**bias) and log-ratios (up to twice the largest number) overflows: what is infinite then is so.
template <class T>
constexpr T kShrink = sizeof(T) == 4 ? (T)0x1p-70 : (T)0x1p-180;

CROSSENT_INLINE bool is_finite(double a) { return a - a == 0; }

// The sums of both rows, block by block as in MomentSum; sum 0 is p's, 1 is q's, 2 that of e_p * (a_p - a_q), or, if shrunk, of
// e_p * T * (a_p - a_q) * kShrink.
template <class T>
struct DivergenceSum {
  Tempering<T> tempering;
  Pair<double> inverse;
  bool shrunk;
  T p_max = -__builtin_inf(), q_max = p_max;
  double p_ties = 0, q_ties = 0;
  LaneSum<T> lanes[3];
  Pair<double> former[3] = {{0, 0}, {0, 0}, {0, 0}};
  bool impossible = false;  // a class of p that q excludes

  CROSSENT_INLINE DivergenceSum(Pair<double> inverse_temperature, bool shrink)
      : tempering(inverse_temperature), inverse(inverse_temperature), shrunk(shrink) {
    for (auto& sum : lanes) sum.clear();
  }

  CROSSENT_INLINE Pair<double> total(int which) const { return pair_sum(former[which], lanes[which].total()); }
  Pair<double> p_mass() const {
    return p_max > -__builtin_inf() ? pair_sum(total(0), {p_ties / kUnbias<T>, 0}) : Pair<double>{0, 0};
  }
  CROSSENT_INLINE bool finite() const { return !impossible && is_finite(total(2).high); }
  // The change of a when a larger maximum takes the place of another.
  Pair<double> step(double from, double to) const {
    const Pair<double> change = pair_product(two_sum(from, -to), inverse);
    return is_finite(change.high) ? change : Pair<double>{-__builtin_inf(), 0};
  }
  // And that of the log-ratios.
  Pair<double> ratio_step(double from, double to) const {
    return shrunk ? two_sum(from * kShrink<T>, -to * kShrink<T>) : step(from, to);
  }

  // Both at once: where both grow alike, the third sum must not move by a single bit.
  CROSSENT_SHARED void grow_to(T p_block_max, T q_block_max) {
    const bool p_grows = p_block_max > p_max, q_grows = q_block_max > q_max;
    if (!p_grows && !q_grows) return;
    if (!(p_max > -__builtin_inf()) && !(q_max > -__builtin_inf())) {  // the first numbers: nothing to scale
      if (p_grows) p_max = p_block_max, p_ties = 0;
      if (q_grows) q_max = q_block_max, q_ties = 0;
      return;
    }
    Pair<double> p_step{0, 0}, q_step{0, 0}, p_ratio_step{0, 0}, q_ratio_step{0, 0};
    if (p_grows && p_max > -__builtin_inf()) {
      p_step = step((double)p_max, (double)p_block_max);
      p_ratio_step = ratio_step((double)p_max, (double)p_block_max);
    }
    if (q_grows && q_max > -__builtin_inf()) {
      q_step = step((double)q_max, (double)q_block_max);
      q_ratio_step = ratio_step((double)q_max, (double)q_block_max);
    }
    const Pair<double> steps = pair_sum(p_ratio_step, {-q_ratio_step.high, -q_ratio_step.low});
    former[2] = pair_sum(total(2), pair_product(p_mass(), steps));
    lanes[2].clear();
    if (former[2].high == __builtin_inf()) {
      impossible = true;
      former[2] = {0, 0};
    }
    if (p_grows) {
      const Pair<double> factor = exp_pair(p_step.high, -p_step.low);
      former[2] = pair_product(former[2], factor);
      move_up(0, p_max, p_ties, p_block_max, factor);
    }
    if (q_grows) move_up(1, q_max, q_ties, q_block_max, exp_pair(q_step.high, -q_step.low));
  }
  CROSSENT_INLINE void move_up(int which, T& max, double& ties, T block_max, Pair<double> factor) {
    if (max > -__builtin_inf()) {
      former[which] = pair_product(pair_sum(total(which), {ties / kUnbias<T>, 0}), factor);
      lanes[which].clear();
    }
    max = block_max;
    ties = 0;
  }

  // The terms where the logits are finite and no maxima, and nothing overflows; else the third may be NaN.
  static CROSSENT_INLINE Terms<T, 3> ordinary_terms(const Pair<Vec<T>>& a, const Pair<Vec<T>>& b) {
    const auto exponential = [](Pair<Vec<T>> d) CROSSENT_LAMBDA {  // 0 at the floor
      d.high = max_or_second(splat(ExpConstants<T>::floor), d.high);
      return exp_biased(d);
    };
    const Vec<T> e = exponential(a);
    return {{e, exponential(b), e * ratio(a, b)}};
  }
  static CROSSENT_INLINE Vec<T> ratio(const Pair<Vec<T>>& a, const Pair<Vec<T>>& b) {
    return (a.high - b.high) + (a.low - b.low);
  }
  // The same in two halves: where there are registers for it, those of the next vector are begun before those of one are ended
  // (see ExponentialsInTurns).
  struct Begun {
    BegunExp<Vectors<T, 2>> exponentials;
    Vec<T> ratio;
  };
  static CROSSENT_INLINE Begun begin_terms(const Pair<Vec<T>>& a, const Pair<Vec<T>>& b) {
    const Vectors<T, 2> high{{a.high, b.high}}, low{{a.low, b.low}};
    return {begin_exp<T>(Pair<Vectors<T, 2>>{max_or_second(splat(ExpConstants<T>::floor), high), low}), ratio(a, b)};
  }
  static CROSSENT_INLINE Terms<T, 3> end_terms(const Begun& begun) {
    const Vectors<T, 2> e = exp_reduced<T>(begun.exponentials.rest, begun.exponentials.shifted);
    return {{e.of[0], e.of[1], e.of[0] * begun.ratio}};
  }
  // For any logits.
  static CROSSENT_SHARED void careful_terms(const Vec<T>& p, const Vec<T>& q, const Vec<T>& p_top, const Vec<T>& q_top,
                                            const Tempering<T>& tempering, bool shrunk, Vec<T>& p_at_max, Vec<T>& q_at_max,
                                            Terms<T, 3>& result) {
    const Vec<T> none = zero<T>(), one = splat((T)1), infinite = splat((T)__builtin_inf()), lowest = none - infinite;
    const Vec<T> p_origin = select(p_top > lowest, p_top, none), q_origin = select(q_top > lowest, q_top, none);
    Pair<Vec<T>> a = tempered_difference(p, p_origin, tempering), b = tempered_difference(q, q_origin, tempering);
    const Vec<T> e = exp_of(a), f = exp_of(b);
    if (shrunk) {
      const Vec<T> shrink = splat(kShrink<T>);
      a = two_sum(p * shrink, none - p_origin * shrink);
      b = two_sum(q * shrink, none - q_origin * shrink);
    }
    const Vec<T> low = a.low - b.low;
    Vec<T> term = e * ((a.high - b.high) + select(low == low, low, none));
    term = select(e == none, none, term);
    term = select(q == lowest, select(p == lowest, none, infinite), term);
    const Mask<T> p_is_max = p == p_top, q_is_max = q == q_top;
    p_at_max = select(p_is_max, p_at_max + one, p_at_max);
    q_at_max = select(q_is_max, q_at_max + one, q_at_max);
    result = {{select(p_is_max, none, e), select(q_is_max, none, f), term}};
  }
  // The terms of a group of n elements.
  CROSSENT_SHARED void careful_group(const T* p, const T* q, ptrdiff_t n, Terms<T, 3>& result) {
    const Vec<T> p_top = splat(p_max), q_top = splat(q_max);
    const T lowest = -__builtin_inf();
    Vec<T> p_at_max = zero<T>(), q_at_max = p_at_max;
    result = last_group<3, T>(0, n, [&](ptrdiff_t i, auto load) CROSSENT_LAMBDA {
      Terms<T, 3> terms;
      careful_terms(load(p + i, lowest), load(q + i, lowest), p_top, q_top, tempering, shrunk, p_at_max, q_at_max, terms);
      return terms;
    });
    p_ties += sum_of_lanes(p_at_max);
    q_ties += sum_of_lanes(q_at_max);
  }

  CROSSENT_SHARED void add_terms(const T* p, const T* q, ptrdiff_t n, const BlockMaxima<T>* maxima, const ReadAhead* ahead,
                                 bool careful) {
    const Vec<T> p_top = splat(p_max), q_top = splat(q_max);
    const Tempering<T> t = tempering;
    LaneSum<T> sums[3] = {lanes[0], lanes[1], lanes[2]};
    const auto add = [&](const Terms<T, 3>& group) CROSSENT_LAMBDA {
      for (int k = 0; k < 3; ++k) sums[k].add(group.term[k]);
    };
    const auto is_ordinary = [&](ptrdiff_t i) CROSSENT_LAMBDA {
      return i + kGroupElements<T> <= n && !careful && !maxima[0].group_holds(i, p_top) && !maxima[1].group_holds(i, q_top);
    };
    constexpr ptrdiff_t lanes_of_vector = Vec<T>::kLanes;
    const auto difference = [&](const T* x, Vec<T> top) CROSSENT_LAMBDA { return tempered_difference(load(x), top, t); };
    const auto begin = [&](ptrdiff_t i)
                           CROSSENT_LAMBDA { return begin_terms(difference(p + i, p_top), difference(q + i, q_top)); };
    for (ptrdiff_t i = 0; i < n; i += kGroupElements<T>) {
      if (is_ordinary(i)) {
        Begun begun = begin(i);
        do {
          ahead[0].fetch(i);
          ahead[1].fetch(i);
          add(group_of_four<3, T>(i, [&](ptrdiff_t j, auto) CROSSENT_LAMBDA {
            if constexpr (kParts > 1) return ordinary_terms(difference(p + j, p_top), difference(q + j, q_top));
            const Begun before = begun;
            begun = begin(j + 2 * lanes_of_vector <= n ? j + lanes_of_vector : j);
            return end_terms(before);
          }));
          i += kGroupElements<T>;
        } while (is_ordinary(i));
      }
      if (i >= n) break;
      Terms<T, 3> group;
      careful_group(p + i, q + i, between(0, n - i, kGroupElements<T>), group);
      add(group);
    }
    for (int k = 0; k < 3; ++k) lanes[k] = sums[k];
  }
  CROSSENT_SHARED void add_block(const T* p, const T* q, ptrdiff_t n, const BlockMaxima<T>* maxima, const ReadAhead* ahead) {
    const DivergenceSum before = *this;
    add_terms(p, q, n, maxima, ahead, shrunk);
    if (shrunk || is_finite(lanes[2].total().high)) return;
    *this = before;
    add_terms(p, q, n, maxima, ahead, true);
  }
};
