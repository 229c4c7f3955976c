// Package bpf holds the kernel's side of the process sensor: process.c, and the
// object that clang made of it, embedded by the generated file beside it. It is
// in the tree so that building the agent needs no clang; make bpf makes it anew.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package bpf -tags linux -target bpfel -cc clang-14 -strip llvm-strip-14 -no-global-types -cflags "-O2 -Wall -Werror -mcpu=v3" Process process.c
