package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"sekisho/internal/lang"

	"github.com/spf13/cobra"
)

// The exit codes, the same for every command of both programs.
const (
	OK      = 0
	Found   = 1 // a check found problems
	Usage   = 2 // wrong use, or input that cannot be read
	Failure = 3 // could not do it: rights, network
)

// exit is an error that knows its exit code.
type exit struct {
	code int
	err  error
}

// Exit is err with an exit code. A nil err says that the person was told already. A
// code that err has already stays: who was nearer to the cause knows better.
func Exit(code int, err error) error {
	if _, ok := errors.AsType[exit](err); ok {
		return err
	}
	return exit{code, err}
}

func (e exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e exit) Unwrap() error { return e.err }

// Cause is an error that a person at the terminal can do something about, and
// what. Of several that fit the first is told.
type Cause struct {
	Err    error
	JA, EN string
}

// textual is an error that has a text in "ja" and in "en".
type textual interface {
	error
	Text(language string) string
}

// Report tells what became of a command to the person, and answers the exit code.
// Problems of settings and rules, which know their places, are printed with them.
func Report(program string, err error, causes ...Cause) int {
	var e exit
	known := errors.As(err, &e)
	switch {
	case err == nil:
		return OK
	case known && e.err == nil:
		return e.code
	case errors.Is(err, ErrHelp): // was printed
		return Usage
	case printProblems(err, os.Stderr):
		if known {
			return e.code
		}
		return Found
	}
	text := err.Error()
	if both, ok := errors.AsType[textual](err); ok {
		text = both.Text(lang.Terminal())
	}
	for _, c := range causes {
		if errors.Is(err, c.Err) {
			text = lang.T(c.JA+"（"+text+"）", text+": "+c.EN)
			break
		}
	}
	fmt.Fprintln(os.Stderr, program+": "+text)
	if known {
		return e.code
	}
	return Failure
}

// printProblems prints the parts of an error that know how to, and reports
// whether there were any.
func printProblems(err error, w io.Writer) bool {
	if p, ok := err.(interface{ Print(io.Writer, string) error }); ok {
		p.Print(w, lang.Terminal())
		return true
	}
	switch x := err.(type) {
	case interface{ Unwrap() error }:
		return printProblems(x.Unwrap(), w)
	case interface{ Unwrap() []error }:
		any := false
		for _, part := range x.Unwrap() {
			any = printProblems(part, w) || any
		}
		return any
	}
	return false
}

// UntilStopped is the context of a command that has something to finish when it is
// told to stop. The others are ended by the signal itself, also while they wait
// for input that does not come.
func UntilStopped(c *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
}
