# Every target is one line; what takes more is a script in tools/ or test/. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help run build test vet lint rules-test fuzz bench bench-agent bench-side package msi test-package test-faults test-vm test-wine test-browser bpf setup clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14

run: ## a console and an agent on this machine, to look at; Ctrl-C stops both
	@tools/run

build: ## both programs for Linux and Windows into bin/
	@tools/setup build && tools/build

test: ## everything that can be tested without special hardware
	@tools/setup build test && tools/test

vet: ## go vet for both systems
	@tools/setup build && tools/vet

lint: ## staticcheck for both systems
	@tools/setup lint && tools/lint

rules-test: ## the tests that stand beside the shipped rules
	@tools/setup build && tools/build linux && bin/sekisho-agent rules test

fuzz: ## every fuzz target for FUZZTIME (20s) each
	@tools/setup build && tools/fuzz

bench: ## Go benchmarks of the packages
	@tools/setup build && tools/go test -run '^$$' -bench . -benchmem ./internal/...

bench-agent: ## the whole agent: starts of a tool, a flood, 10 idle minutes, how it slows a build and a copy of 5 GB
	@tools/setup build && tools/go test -run '^$$' -bench ToolStart -benchtime 200x ./test/bench && tools/go test -run '^$$' -bench 'Flood|Idle|Build|Copy' -benchtime 1x -timeout 2h ./test/bench

bench-side: ## the agent, auditd and inotify side by side: 20,000 starts and 20,000 writes, what each sees and costs
	@tools/setup build && tools/go test -run '^$$' -bench SideBySide -benchtime 3x -timeout 1h ./test/bench

package: ## deb, rpm, MSI, bills of materials and checksums into dist/
	@tools/setup build package && tools/package

msi: ## the agent's installer for Windows into dist/ (SIGN_CERT and SIGN_KEY sign it)
	@tools/setup build msi && tools/build windows && packaging/windows/build

test-package: ## packages built twice, in two clones, with nothing shared: the same bytes; installed, upgraded, purged in a folder; rpm under systemd
	@tools/setup build package vm && SEKISHO_PACKAGE=1 tools/go test -count=1 -timeout 90m ./packaging && SEKISHO_PACKAGE=1 SEKISHO_VM=1 tools/go test -count=1 -timeout 1h -run RPM ./test/vm

test-faults: ## each program killed 100 times during 1,000 alerts, the judge 30 times during 1,000,000 events and 30 during 100,000 with all evidence
	@tools/setup build && test/faults/run

test-vm: ## the agent on a real kernel with emulated USB devices
	@tools/setup build vm && tools/build static && SEKISHO_VM=1 tools/go test -count=1 -timeout 3h ./test/vm

test-wine: ## the Windows programs and every Go test under Wine
	@tools/setup build wine msi && tools/build windows && test/wine/test

test-browser: ## the console in Chromium; SCREENSHOTS=DIR keeps pictures
	@tools/setup build browser && tools/build linux && test/browser/run

bpf: ## the process sensor's programs for the kernel, made anew from their C source (clang 14); go test compares
	@tools/setup build bpf && tools/go generate ./internal/procwatch/bpf

setup: ## installs what building and testing need
	@tools/setup build test

clean: ## removes what build and run made
	rm -rf bin dist .run
