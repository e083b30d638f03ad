// Lanes of native vectors of any width in another order.
#pragma once

template <int... lane>
struct LaneNumbers {};
template <int count, int... lane>
struct CountLanes : CountLanes<count - 1, count - 1, lane...> {};
template <int... lane>
struct CountLanes<0, lane...> {
  using Numbers = LaneNumbers<lane...>;
};
template <class Order, class Native, int... lane>
CROSSENT_INLINE Native reordered(Native a, Native b, LaneNumbers<lane...>) {
  return __builtin_shufflevector(a, b, Order::from(lane, (int)sizeof...(lane))...);
}
// Lane i of the result is lane Order::from(i, lanes) of a followed by b.
template <class Order, class Native>
CROSSENT_INLINE Native reordered(Native a, Native b) {
  return reordered<Order>(a, b, typename CountLanes<sizeof(Native) / sizeof(a[0])>::Numbers{});
}

// Lane i of the result is lane i ^ step.
template <int step>
struct Exchange {
  static constexpr int from(int i, int) { return i ^ step; }
};
template <int step, class Native>
CROSSENT_INLINE Native exchange(Native a) {
  return reordered<Exchange<step>>(a, a);
}

// Element e of several vectors one after the other, of which the first two come as they are, then the third beside what was
// taken of those.
template <class Order>
struct FromFirstTwo {
  static constexpr int from(int i, int lanes) {
    const int e = Order::element(i, lanes);
    return e < 2 * lanes ? e : 0;
  }
};
template <class Order>
struct FromThird {
  static constexpr int from(int i, int lanes) {
    const int e = Order::element(i, lanes);
    return e < 2 * lanes ? i : e - lanes;
  }
};
// Lane i of the result is element Order::element(i, lanes) of `count` vectors, two or three.
template <class Order, int count, class Native>
CROSSENT_INLINE Native elements_of(const Native* v) {
  const Native of_two = reordered<FromFirstTwo<Order>>(v[0], v[1]);
  if constexpr (count == 2) {
    return of_two;
  } else {
    return reordered<FromThird<Order>>(of_two, v[2]);
  }
}

// Every count-th element from `first` on; and back: vector number k of those that hold the lanes of `count` vectors in turns.
template <int count, int first>
struct EveryOther {
  static constexpr int element(int i, int) { return count * i + first; }
};
template <int count, int k>
struct InTurns {
  static constexpr int element(int i, int lanes) { return (k * lanes + i) % count * lanes + (k * lanes + i) / count; }
};
