// Rows that lie contiguous, a group of them: where each is read, kept and written. What row kernels are given.
#pragma once

// Classes of a row that are written together.
struct Part {
  ptrdiff_t first, last;
};

template <class T>
struct RowGroup {
  const Run& run;
  ptrdiff_t first, count;
  T *buffer, *kept;  // three blocks, and room for a number an element, or for two rows in turns
  bool in_output;    // what is kept is kept where the results will be
  bool in_turns;     // a row is written while the next one is summed: the others need not be kept

  CROSSENT_INLINE const char* row(const Operand& a, ptrdiff_t lane) const { return a.data + (first + lane) * a.row_stride; }
  CROSSENT_INLINE RowInput<T> input(ptrdiff_t lane) const {
    return {row(run.input, lane), run.input.type, buffer, run.fetches_far};
  }
  CROSSENT_INLINE RowInput<T> second(ptrdiff_t lane) const {
    return {row(run.second, lane), run.second.type, buffer + kBlock<T>, run.fetches_far};
  }
  CROSSENT_INLINE RowOutput<T> output(ptrdiff_t lane) const {
    return {(char*)row(run.output, lane), run.output.type, buffer + 2 * kBlock<T>, run.stream};
  }
  CROSSENT_INLINE Part whole() const { return {0, run.classes}; }
  CROSSENT_INLINE T* kept_of(ptrdiff_t lane) const {
    return in_output ? (T*)row(run.output, lane) : kept + (in_turns ? lane % 2 : lane) * padded<T>(run.classes);
  }
  // What comes after this group, and where the results of this one go (the next one's, where exponentials are kept there: they
  // are written now); null where they go past the caches or there are none (what is only read is not to be asked for
  // as if it were written: softmax of 1024 x 50257 past the caches 0.63 -> 0.54 ns per element).
  CROSSENT_INLINE const char* ahead(ptrdiff_t lane) const { return row(run.input, lane + count); }
  CROSSENT_INLINE const char* soon(ptrdiff_t lane) const {
    return run.output.data && !run.stream ? row(run.output, in_output ? lane + 1 : lane) : nullptr;
  }
};
