# make help lists the targets. CI calls these and nothing else.
BIN     := spillway
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO      ?= go
LDFLAGS := -s -w -X main.version=$(VERSION)
TRACE   := integration/load/testdata/azure_llm_inference_conv_2023.csv
FUZZTIME ?= 20s
LINT    := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.5.0

.DEFAULT_GOAL := help
.PHONY: help build run test integration images up down demo lint fmt fuzz bench load

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build ./spillway
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) .

run: build ## build and run everything on this machine: broker, registry, ClickHouse, all roles
	@./$(BIN) dev

test: ## run all tests; needs nothing started by hand
	$(GO) vet ./...
	$(GO) test -p 4 -timeout 280s ./... # most of them wait, for brokers and for what must time out

integration: build ## run the stories on every kind of stack this machine offers; ends with a table of them
	$(GO) test -count=1 -timeout 1700s -tags integration ./integration/...

images: ## build the container images where none can be pulled, and the product's; needs Docker, debootstrap, Maven, npm
	@deploy/images/build.sh

# For the image, if there is none yet.
up demo: export SPILLWAY_VERSION := $(VERSION)

up: ## start docker-compose.yml: Kafka, registry, ClickHouse, every role, Prometheus, Grafana
	@deploy/stack.sh up

down: ## stop what `make up` started; its data stays
	@deploy/stack.sh down

demo: build ## start it, play the trace through it for a minute, say where to look
	@deploy/stack.sh demo

lint: ## vet, formatting and linters
	@test -z "$$(gofmt -l . | tee /dev/stderr)"
	$(GO) vet ./...
	$(LINT) run ./...

fmt: ## format the code
	gofmt -w .

fuzz: ## run each fuzz target for FUZZTIME (20s)
	@$(GO) list ./... | while read -r pkg; do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; done

bench: ## run all benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./...

load: build ## play the trace against a running `make run` and check every delivery
	./$(BIN) load --trace $(TRACE) --speed 5 --tenants 20 --duration 60s
