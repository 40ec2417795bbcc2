# The ways into this project. Each target is a script of the same name in scripts/, which
# can be called by itself; ARGS hands it arguments: make test ARGS="-E 'test(outbox)'"

ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench faults sqlx services services-stop

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

demo: ## Bring everything up, run a pipeline, and leave it up until Ctrl-C
	@scripts/demo $(ARGS)

test: ## All tests, against real servers
	@scripts/test $(ARGS)

lint: ## Everything that is checked without running the code
	@scripts/lint $(ARGS)

bench: ## Measure, on fresh servers
	@scripts/bench $(ARGS)

faults: ## Break everything in every way of docs/faults.md, and write there what was seen
	@scripts/faults $(ARGS)

sqlx: ## Describe the queries of the code anew in .sqlx
	@scripts/sqlx $(ARGS)

services: ## Start PostgreSQL and RabbitMQ of this checkout's own (see scripts/services)
	@scripts/services up
	@scripts/services env

services-stop: ## Stop them; their data stays
	@scripts/services down
