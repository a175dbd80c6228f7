#include "picture/trespass.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

#include "picture/frames.h"

namespace grenier::picture {

namespace {

void say(bytes_view b) {
  while (!b.empty()) {
    const auto n = ::write(1, b.data(), b.size());
    if (n <= 0) ::_exit(0);
    b.remove_prefix(static_cast<std::size_t>(n));
  }
}

// Answers of a child that somebody else has taken over.
void lie(bytes_view how) {
  const plan p{file_format::jpeg, 100, 100, how == "greedy" ? ~std::uint64_t{0} : 1000};
  facts f;
  f.format = file_format::jpeg;
  f.width = f.height = 100;
  if (how == "chatter") say(encode_done());
  if (how == "early") say(encode(f));
  say(encode(p));
  char consent;
  if (::read(0, &consent, 1) != 1) ::_exit(0);
  if (how == "control") f.make = "\x1b[2J";
  if (how == "place") f.latitude = 91, f.longitude = 0;
  say(encode(f));
  bytes page = "<html><script>alert(1)</script>";
  say(encode(rendition{320, image_type::jpeg, 100, 100, share(page)}));
  say(encode_done());
}

}  // namespace

void trespass(bytes_view file) {
  if (!file.starts_with("\xff\xd8\xff" "trespass ")) return;
  const bytes_view what = file.substr(12);
  if (what == "open") (void)!::open("/etc/passwd", O_RDONLY);
  if (what == "create") (void)!::open("/tmp/grenier-picture-was-here", O_RDWR | O_CREAT, 0600);
  if (what == "socket") (void)!::socket(AF_INET, SOCK_STREAM, 0);
  if (what == "execve") {
    char* none[] = {nullptr};
    ::execve("/bin/true", none, none);
  }
  if (what == "fork") (void)!::fork();
  if (what == "thread") {
    pthread_t t;
    ::pthread_create(&t, nullptr, [](void*) -> void* { return nullptr; }, nullptr);
  }
  if (what == "code") (void)!::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (what == "ptrace") (void)!::syscall(SYS_ptrace, 0, 0, 0, 0);
  if (what == "limits") {
    const struct rlimit none {RLIM_INFINITY, RLIM_INFINITY};
    ::setrlimit(RLIMIT_AS, &none);
  }
  if (what == "crash") {
    volatile int* nowhere = nullptr;
    *nowhere = 1;
  }
  if (what == "abort") std::abort();
  if (what == "memory") {
    for (;;) {
      auto* volatile p = static_cast<volatile char*>(std::malloc(1 << 20));
      if (!p) throw std::bad_alloc();
      for (int i = 0; i < 1 << 20; i += 4096) p[i] = 1;
    }
  }
  if (what == "forever")
    for (volatile unsigned i = 0;; i = i + 1) {
    }
  if (what == "sleep") {
    int word = 0;
    ::syscall(SYS_futex, &word, 0 /* FUTEX_WAIT */, 0, nullptr, nullptr, 0);
  }
  if (what.starts_with("lie ")) lie(what.substr(4));
  // Still here: whatever it was is allowed.
  say(encode_refused(verdict::undecodable, "nothing stopped it"));
  ::_exit(0);
}

}  // namespace grenier::picture
