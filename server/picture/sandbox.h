// picture/sandbox.h: what the decoder gives up before it reads the first byte of a picture.
//
// Beside its standard input and output, memory, time of day and its own end it then has nothing: opening a file or socket, starting a
// program or thread, and every other system call kills it (SIGSYS).
//
//   Runs on   the child's only thread, once, after the libraries were warmed up.
//   Errors    a sentence; the child must not go on then. Landlock alone may be missing (kernels before 5.13): seccomp denies the same.
//   Limits    640 MiB of address space beside what is mapped when it is called (40 megapixels of a HEIC of ten bits take as much); no file written, no further descriptor.
#pragma once

#include <string>

namespace grenier::picture {

// Dies with its parent, runs at the lowest priority for CPU and disk.
void be_humble();
// Empty when all of it holds.
std::string enter_sandbox();

}  // namespace grenier::picture
