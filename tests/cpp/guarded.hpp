// Memory between two pages that must not be touched: an access beyond either end of an array ends the test, which says where
// it was. POSIX only.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace crossent_test {

// What is being tested, for the signal handler.
inline char current_case[512];

inline void begin_case(const std::string& name) { std::snprintf(current_case, sizeof current_case, "%s", name.c_str()); }

[[noreturn]] inline void report_fault(int signal) {
  const char* heads[] = {"\nFAILED: touched memory beyond an array: ", "\nFAILED: an instruction that the processor lacks: "};
  const char* head = heads[signal == SIGILL];
  if (write(2, head, std::strlen(head)) < 0 || write(2, current_case, std::strlen(current_case)) < 0) _exit(2);
  _exit(1);
}

inline void catch_faults() {
  for (int signal : {SIGSEGV, SIGBUS, SIGILL}) std::signal(signal, report_fault);
}

// Off for emulators that read all lanes of a masked load, such as qemu-x86_64 7.2; processors do not.
inline bool guard_pages = true;

enum class Place { at_start, at_end };  // against the page before, or the page after

// `bytes` of memory against one of its guard pages; all that is mapped holds the filler until it is written to.
class Guarded {
 public:
  static constexpr unsigned char kFiller = 0xA5;

  Guarded(std::size_t bytes, Place place) : bytes_(bytes) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    inside_ = (bytes / page + 1) * page;
    mapped_ = inside_ + 2 * page;
    void* memory = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) fail("mmap");
    base_ = static_cast<unsigned char*>(memory);
    begin_ = base_ + page;
    if (mprotect(begin_, inside_, PROT_READ | PROT_WRITE) != 0) fail("mprotect");
    if (!guard_pages && mprotect(base_, mapped_, PROT_READ | PROT_WRITE) != 0) fail("mprotect");
    std::memset(begin_, kFiller, inside_);
    data_ = place == Place::at_start ? begin_ : begin_ + (inside_ - bytes);
  }
  ~Guarded() { munmap(base_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  unsigned char* data() const { return data_; }
  std::size_t size() const { return bytes_; }
  // Makes any further write end the test.
  void protect() {
    if (mprotect(begin_, inside_, PROT_READ) != 0) fail("mprotect");
  }
  bool all_filler() const { return begin_[0] == kFiller && std::memcmp(begin_, begin_ + 1, inside_ - 1) == 0; }

 private:
  [[noreturn]] static void fail(const char* call) {
    std::perror(call);
    std::exit(2);
  }

  std::size_t bytes_, inside_, mapped_;
  unsigned char *base_, *begin_, *data_;
};

}  // namespace crossent_test
