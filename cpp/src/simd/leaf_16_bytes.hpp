// What leaves of 16-byte vectors share, in generic vectors.
#pragma once

// No stores past the caches: NEON has none for single vectors, and hardly any processor needs the baseline.
constexpr bool kStreams = false;
CROSSENT_INLINE void store_stream(float* p, NativeFloat a) { __builtin_memcpy(p, &a, sizeof a); }
CROSSENT_INLINE void store_stream(double* p, NativeDouble a) { __builtin_memcpy(p, &a, sizeof a); }
CROSSENT_INLINE void finish_stream() {}

CROSSENT_INLINE NativeFloat load_first(const float* p, ptrdiff_t count, NativeFloat fill) {
  return load_first_by_copy(p, count, fill);
}
CROSSENT_INLINE NativeDouble load_first(const double* p, ptrdiff_t count, NativeDouble fill) {
  return load_first_by_copy(p, count, fill);
}
CROSSENT_INLINE void store_first(float* p, ptrdiff_t count, NativeFloat a) { store_first_by_copy(p, count, a); }
CROSSENT_INLINE void store_first(double* p, ptrdiff_t count, NativeDouble a) { store_first_by_copy(p, count, a); }
CROSSENT_INLINE void read_first_16_bits(const void* from, ptrdiff_t count, void* to) {
  read_first_16_bits_by_copy(from, count, to);
}
CROSSENT_INLINE void write_first_16_bits(void* to, ptrdiff_t count, const void* from) {
  write_first_16_bits_by_copy(to, count, from);
}

// Within each 16-byte chunk: the first halves' lanes in turn, or the second halves'.
CROSSENT_INLINE NativeFloat interleave_low(NativeFloat a, NativeFloat b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
CROSSENT_INLINE NativeFloat interleave_high(NativeFloat a, NativeFloat b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
CROSSENT_INLINE NativeDouble interleave_low(NativeDouble a, NativeDouble b) { return __builtin_shufflevector(a, b, 0, 2); }
CROSSENT_INLINE NativeDouble interleave_high(NativeDouble a, NativeDouble b) { return __builtin_shufflevector(a, b, 1, 3); }

// Chunk k of the vector is the 16 bytes at p + k * step, or the 8 bytes of elements of 16 bits; here there is one.
CROSSENT_INLINE NativeFloat load_chunks(const char* p, ptrdiff_t) {
  NativeFloat a;
  __builtin_memcpy(&a, p, sizeof a);
  return a;
}
CROSSENT_INLINE NativeBits load_16_bit_chunks(const char* p, ptrdiff_t) { return load_16_bits(p); }
CROSSENT_INLINE NativeFloat load_half_chunks(const char* p, ptrdiff_t) { return load_halves(p); }
CROSSENT_INLINE void store_chunks(char* p, ptrdiff_t, NativeFloat a) { __builtin_memcpy(p, &a, sizeof a); }
CROSSENT_INLINE void store_16_bit_chunks(char* p, ptrdiff_t, NativeBits a) { store_16_bits(p, a); }
CROSSENT_INLINE void store_half_chunks(char* p, ptrdiff_t, NativeFloat a) { store_halves(p, a); }
