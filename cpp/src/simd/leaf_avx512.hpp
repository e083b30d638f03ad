// Vector leaf for x86-64 with AVX-512 F, BW, DQ and VL (and all of AVX2's leaf): 64-byte vectors.
#pragma once

constexpr int kNativeBytes = 64;
constexpr bool kHasFma = true;

typedef float NativeFloat __attribute__((vector_size(kNativeBytes)));
typedef double NativeDouble __attribute__((vector_size(kNativeBytes)));
typedef uint32_t NativeBits __attribute__((vector_size(kNativeBytes)));

CROSSENT_INLINE NativeFloat native_fma(NativeFloat a, NativeFloat b, NativeFloat c) {
  return (NativeFloat)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
CROSSENT_INLINE NativeDouble native_fma(NativeDouble a, NativeDouble b, NativeDouble c) {
  return (NativeDouble)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}

CROSSENT_INLINE NativeFloat native_max(NativeFloat a, NativeFloat b) {
  return (NativeFloat)_mm512_max_ps((__m512)a, (__m512)b);
}
CROSSENT_INLINE NativeDouble native_max(NativeDouble a, NativeDouble b) {
  return (NativeDouble)_mm512_max_pd((__m512d)a, (__m512d)b);
}

// Dekker's shorter form, for which the larger magnitude must come first: 4 operations instead of 5, and 2 instead of 4 of them
// one after the other (of which a loop of exponentials has too many for the scheduler: 0.27 -> 0.20 ns per element on Sapphire
// Rapids).
CROSSENT_INLINE NativeFloat sum_error(NativeFloat a, NativeFloat b, NativeFloat sum) {
  const __m512 larger = _mm512_range_ps((__m512)a, (__m512)b, 7), smaller = _mm512_range_ps((__m512)a, (__m512)b, 6);
  return (NativeFloat)smaller - (sum - (NativeFloat)larger);
}
CROSSENT_INLINE NativeDouble sum_error(NativeDouble a, NativeDouble b, NativeDouble sum) {
  const __m512d larger = _mm512_range_pd((__m512d)a, (__m512d)b, 7), smaller = _mm512_range_pd((__m512d)a, (__m512d)b, 6);
  return (NativeDouble)smaller - (sum - (NativeDouble)larger);
}

CROSSENT_INLINE bool any_lane_less(NativeFloat a, NativeFloat b) {
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ) != 0;
}
CROSSENT_INLINE bool any_lane_less(NativeDouble a, NativeDouble b) {
  return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_LT_OQ) != 0;
}
CROSSENT_INLINE bool any_lane_equal(NativeFloat a, NativeFloat b) {
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ) != 0;
}
CROSSENT_INLINE bool any_lane_equal(NativeDouble a, NativeDouble b) {
  return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_EQ_OQ) != 0;
}
// Which lanes are unequal, and what is done with them: all from one comparison.
typedef __mmask16 NativeLanes;
CROSSENT_INLINE NativeLanes unequal_lanes(NativeFloat a, NativeFloat b) {
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NEQ_UQ);
}
CROSSENT_INLINE NativeFloat only_lanes(NativeLanes lanes, NativeFloat value) {
  return (NativeFloat)_mm512_maskz_mov_ps(lanes, (__m512)value);
}
CROSSENT_INLINE int count_lanes(NativeLanes a, NativeLanes b, NativeLanes c, NativeLanes d) {
  return __builtin_popcountll(_cvtmask64_u64(_mm512_kunpackd(_mm512_kunpackw(d, c), _mm512_kunpackw(b, a))));
}

CROSSENT_INLINE NativeDouble widen_low(NativeFloat a) {
  return (NativeDouble)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)a));
}
CROSSENT_INLINE NativeDouble widen_high(NativeFloat a) {
  return (NativeDouble)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)a, 1));
}
CROSSENT_INLINE NativeDouble load_widened(const float* p) { return (NativeDouble)_mm512_cvtps_pd(_mm256_loadu_ps(p)); }
CROSSENT_INLINE void store_narrowed(float* p, NativeDouble a) { _mm256_storeu_ps(p, _mm512_cvtpd_ps((__m512d)a)); }
CROSSENT_INLINE NativeFloat narrow(NativeDouble low, NativeDouble high) {
  const __m512 half = _mm512_castps256_ps512(_mm512_cvtpd_ps((__m512d)low));
  return (NativeFloat)_mm512_insertf32x8(half, _mm512_cvtpd_ps((__m512d)high), 1);
}

constexpr bool kStreams = true;  // there are stores past the caches
CROSSENT_INLINE void store_stream(float* p, NativeFloat a) { _mm512_stream_ps(p, (__m512)a); }
CROSSENT_INLINE void store_stream(double* p, NativeDouble a) { _mm512_stream_pd(p, (__m512d)a); }
CROSSENT_INLINE void finish_stream() { _mm_sfence(); }

CROSSENT_INLINE NativeBits load_16_bits(const void* p) {
  return (NativeBits)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
}
CROSSENT_INLINE void store_16_bits(void* p, NativeBits a) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16((__m512i)a));
}

// The upper halves of what this returns are a vector rounded to bfloat16, if none is NaN: the last bits decide ties by a masked
// addition.
CROSSENT_INLINE __m512i rounded_to_upper_halves(NativeFloat a) {
  const __m512i sum = _mm512_add_epi32((__m512i)a, _mm512_set1_epi32(0x7fff));
  const __mmask16 is_odd = _mm512_test_epi32_mask((__m512i)a, _mm512_set1_epi32(0x10000));
  return _mm512_mask_add_epi32(sum, is_odd, sum, _mm512_set1_epi32(1));
}
CROSSENT_INLINE bool any_nan(NativeFloat a, NativeFloat b) {
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_UNORD_Q) != 0;
}

// Two vectors, rounded to bfloat16: one permutation packs the upper halves of both (1000 classes: softmax 0.44 -> 0.39 ns per
// element).
CROSSENT_INLINE void store_bfloat16_pair(void* p, NativeFloat a, NativeFloat b) {
  if (__builtin_expect(any_nan(a, b), 0)) {
    store_16_bits(p, float_to_bfloat16_bits<NativeBits>(a));
    store_16_bits((char*)p + kNativeBytes / 2, float_to_bfloat16_bits<NativeBits>(b));
    return;
  }
  const __m512i upper_halves = _mm512_set_epi32(0x3f003d, 0x3b0039, 0x370035, 0x330031, 0x2f002d, 0x2b0029, 0x270025, 0x230021,
                                                0x1f001d, 0x1b0019, 0x170015, 0x130011, 0x0f000d, 0x0b0009, 0x070005, 0x030001);
  _mm512_storeu_si512(p, _mm512_permutex2var_epi16(rounded_to_upper_halves(a), upper_halves, rounded_to_upper_halves(b)));
}

CROSSENT_INLINE NativeFloat load_halves(const void* p) {
  return (NativeFloat)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
}
CROSSENT_INLINE void store_halves(void* p, NativeFloat a) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph((__m512)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

CROSSENT_INLINE uint32_t first_lanes(ptrdiff_t count, int lanes) {
  const ptrdiff_t at_most = count < lanes ? count : lanes, clamped = at_most > 0 ? at_most : 0;
  return (1u << clamped) - 1u;
}
CROSSENT_INLINE NativeFloat load_first(const float* p, ptrdiff_t count, NativeFloat fill) {
  return (NativeFloat)_mm512_mask_loadu_ps((__m512)fill, (__mmask16)first_lanes(count, 16), p);
}
CROSSENT_INLINE NativeDouble load_first(const double* p, ptrdiff_t count, NativeDouble fill) {
  return (NativeDouble)_mm512_mask_loadu_pd((__m512d)fill, (__mmask8)first_lanes(count, 8), p);
}
CROSSENT_INLINE void store_first(float* p, ptrdiff_t count, NativeFloat a) {
  _mm512_mask_storeu_ps(p, (__mmask16)first_lanes(count, 16), (__m512)a);
}
CROSSENT_INLINE void store_first(double* p, ptrdiff_t count, NativeDouble a) {
  _mm512_mask_storeu_pd(p, (__mmask8)first_lanes(count, 8), (__m512d)a);
}
// A read of the vector would have to wait for a copy of so many bytes (softmax of rows of 10 bfloat16 in a wider array: 1.71 ->
// 0.92 ns per element).
CROSSENT_INLINE void read_first_16_bits(const void* from, ptrdiff_t count, void* to) {
  _mm256_storeu_si256((__m256i*)to, _mm256_maskz_loadu_epi16((__mmask16)first_lanes(count, 16), from));
}
CROSSENT_INLINE void write_first_16_bits(void* to, ptrdiff_t count, const void* from) {
  _mm256_mask_storeu_epi16(to, (__mmask16)first_lanes(count, 16), _mm256_loadu_si256((const __m256i*)from));
}

// Within each 16-byte chunk: the first halves' lanes in turn, or the second halves'.
CROSSENT_INLINE NativeFloat interleave_low(NativeFloat a, NativeFloat b) {
  return (NativeFloat)_mm512_unpacklo_ps((__m512)a, (__m512)b);
}
CROSSENT_INLINE NativeFloat interleave_high(NativeFloat a, NativeFloat b) {
  return (NativeFloat)_mm512_unpackhi_ps((__m512)a, (__m512)b);
}
CROSSENT_INLINE NativeDouble interleave_low(NativeDouble a, NativeDouble b) {
  return (NativeDouble)_mm512_unpacklo_pd((__m512d)a, (__m512d)b);
}
CROSSENT_INLINE NativeDouble interleave_high(NativeDouble a, NativeDouble b) {
  return (NativeDouble)_mm512_unpackhi_pd((__m512d)a, (__m512d)b);
}

// Chunk k of the vector is the 16 bytes at p + k * step.
CROSSENT_INLINE NativeFloat load_chunks(const char* p, ptrdiff_t step) {
  const __m256 low =
      _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps((const float*)p)), _mm_loadu_ps((const float*)(p + step)), 1);
  const __m256 high = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps((const float*)(p + 2 * step))),
                                           _mm_loadu_ps((const float*)(p + 3 * step)), 1);
  return (NativeFloat)_mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}
// The same of elements of 16 bits: chunk k is made of the 8 bytes at p + k * step.
CROSSENT_INLINE __m256i read_16_bit_chunks(const char* p, ptrdiff_t step) {
  const auto two = [=](const char* q) CROSSENT_LAMBDA {
    return _mm_castpd_si128(_mm_loadh_pd(_mm_castsi128_pd(_mm_loadl_epi64((const __m128i*)q)), (const double*)(q + step)));
  };
  return _mm256_set_m128i(two(p + 2 * step), two(p));
}
CROSSENT_INLINE NativeBits load_16_bit_chunks(const char* p, ptrdiff_t step) {
  return (NativeBits)_mm512_cvtepu16_epi32(read_16_bit_chunks(p, step));
}
CROSSENT_INLINE NativeFloat load_half_chunks(const char* p, ptrdiff_t step) {
  return (NativeFloat)_mm512_cvtph_ps(read_16_bit_chunks(p, step));
}
CROSSENT_INLINE void store_chunks(char* p, ptrdiff_t step, NativeFloat a) {
  _mm_storeu_ps((float*)p, _mm512_castps512_ps128((__m512)a));
  _mm_storeu_ps((float*)(p + step), _mm512_extractf32x4_ps((__m512)a, 1));
  _mm_storeu_ps((float*)(p + 2 * step), _mm512_extractf32x4_ps((__m512)a, 2));
  _mm_storeu_ps((float*)(p + 3 * step), _mm512_extractf32x4_ps((__m512)a, 3));
}
CROSSENT_INLINE void write_16_bit_chunks(char* p, ptrdiff_t step, __m256i a) {
  const auto two = [=](char* q, __m128i chunks) CROSSENT_LAMBDA {
    _mm_storel_epi64((__m128i*)q, chunks);
    __builtin_memcpy(q + step, (const char*)&chunks + 8, 8);
  };
  two(p, _mm256_castsi256_si128(a));
  two(p + 2 * step, _mm256_extracti128_si256(a, 1));
}
CROSSENT_INLINE void store_16_bit_chunks(char* p, ptrdiff_t step, NativeBits a) {
  write_16_bit_chunks(p, step, _mm512_cvtepi32_epi16((__m512i)a));
}
CROSSENT_INLINE void store_half_chunks(char* p, ptrdiff_t step, NativeFloat a) {
  write_16_bit_chunks(p, step, _mm512_cvtps_ph((__m512)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// Chunk k of a, and of b after it, to the 16 or 32 bytes at p + k * step.
CROSSENT_INLINE void store_pairs_of_half_chunks(char* p, ptrdiff_t step, NativeFloat a, NativeFloat b) {
  const __m256i left = _mm512_cvtps_ph((__m512)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256i right = _mm512_cvtps_ph((__m512)b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256i even = _mm256_unpacklo_epi64(left, right), odd = _mm256_unpackhi_epi64(left, right);
  _mm_storeu_si128((__m128i*)p, _mm256_castsi256_si128(even));
  _mm_storeu_si128((__m128i*)(p + step), _mm256_castsi256_si128(odd));
  _mm_storeu_si128((__m128i*)(p + 2 * step), _mm256_extracti128_si256(even, 1));
  _mm_storeu_si128((__m128i*)(p + 3 * step), _mm256_extracti128_si256(odd, 1));
}
CROSSENT_INLINE void store_pairs_of_bfloat16_chunks(char* p, ptrdiff_t step, NativeFloat a, NativeFloat b) {
  if (__builtin_expect(any_nan(a, b), 0)) {
    store_16_bit_chunks(p, step, float_to_bfloat16_bits<NativeBits>(a));
    store_16_bit_chunks(p + 8, step, float_to_bfloat16_bits<NativeBits>(b));
    return;
  }
  const __m512i upper_halves = _mm512_set_epi32(0x3f003d, 0x3b0039, 0x1f001d, 0x1b0019, 0x370035, 0x330031, 0x170015, 0x130011,
                                                0x2f002d, 0x2b0029, 0x0f000d, 0x0b0009, 0x270025, 0x230021, 0x070005, 0x030001);
  const __m512i packed = _mm512_permutex2var_epi16(rounded_to_upper_halves(a), upper_halves, rounded_to_upper_halves(b));
  _mm_storeu_si128((__m128i*)p, _mm512_castsi512_si128(packed));
  _mm_storeu_si128((__m128i*)(p + step), _mm512_extracti32x4_epi32(packed, 1));
  _mm_storeu_si128((__m128i*)(p + 2 * step), _mm512_extracti32x4_epi32(packed, 2));
  _mm_storeu_si128((__m128i*)(p + 3 * step), _mm512_extracti32x4_epi32(packed, 3));
}
CROSSENT_INLINE void store_pairs_of_chunks(char* p, ptrdiff_t step, NativeFloat a, NativeFloat b) {
  const __m512i low_chunks = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high_chunks = low_chunks + 4;
  const __m512d low = _mm512_permutex2var_pd((__m512d)a, low_chunks, (__m512d)b);
  const __m512d high = _mm512_permutex2var_pd((__m512d)a, high_chunks, (__m512d)b);
  _mm256_storeu_pd((double*)p, _mm512_castpd512_pd256(low));
  _mm256_storeu_pd((double*)(p + step), _mm512_extractf64x4_pd(low, 1));
  _mm256_storeu_pd((double*)(p + 2 * step), _mm512_castpd512_pd256(high));
  _mm256_storeu_pd((double*)(p + 3 * step), _mm512_extractf64x4_pd(high, 1));
}

// Bit i: the sign of lane i, as comparisons set it.
CROSSENT_INLINE uint32_t lane_signs(NativeFloat a) { return _mm512_movepi32_mask((__m512i)a); }
CROSSENT_INLINE uint32_t lane_signs(NativeDouble a) { return _mm512_movepi64_mask((__m512i)a); }
