# Every target is one line; what takes more is a script in tools/ or test/. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help run test build vet lint fuzz setup clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14

build: ## both programs for Linux and Windows into bin/
	@tools/setup build && tools/build

test: ## everything that can be tested without special hardware
	@tools/setup build test && tools/test

vet: ## go vet for both systems
	@tools/setup build && tools/vet

fuzz: ## every fuzz target for FUZZTIME (20s) each
	@tools/setup build && tools/fuzz

setup: ## installs what building and testing need
	@tools/setup build test

clean: ## removes what build and run made
	rm -rf bin dist .run
