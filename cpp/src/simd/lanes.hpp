// What the sets without mask registers share.
#pragma once

// Lanes of floats that differ: as vectors, as comparisons leave them.
typedef NativeFloat NativeLanes;
CROSSENT_INLINE NativeLanes unequal_lanes(NativeFloat a, NativeFloat b) { return (NativeFloat)(a != b); }
CROSSENT_INLINE NativeFloat only_lanes(NativeLanes lanes, NativeFloat value) {
  return (NativeFloat)((NativeBits)lanes & (NativeBits)value);
}
CROSSENT_INLINE int count_lanes(NativeLanes a, NativeLanes b, NativeLanes c, NativeLanes d) {
  constexpr int lanes = kNativeBytes / 4;
  return __builtin_popcount(lane_signs(a) | lane_signs(b) << lanes) +
         __builtin_popcount(lane_signs(c) | lane_signs(d) << lanes);
}

// Chunk k of a, and of b after it, to the 16 or 32 bytes at p + k * step. For kernels that ask for it where a vector is one
// register, which these sets only compile.
CROSSENT_INLINE void store_pairs_of_chunks(char* p, ptrdiff_t step, NativeFloat a, NativeFloat b) {
  store_chunks(p, step, a);
  store_chunks(p + 16, step, b);
}
CROSSENT_INLINE void store_pairs_of_half_chunks(char* p, ptrdiff_t step, NativeFloat a, NativeFloat b) {
  store_half_chunks(p, step, a);
  store_half_chunks(p + 8, step, b);
}
CROSSENT_INLINE void store_pairs_of_bfloat16_chunks(char* p, ptrdiff_t step, NativeFloat a, NativeFloat b) {
  store_16_bit_chunks(p, step, float_to_bfloat16_bits<NativeBits>(a));
  store_16_bit_chunks(p + 8, step, float_to_bfloat16_bits<NativeBits>(b));
}
