package main

import (
	"context"
	"errors"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
)

// What Windows says to a service that runs, each in its own way the end.
func TestTheServiceStopsInOrder(t *testing.T) {
	for name, cmd := range map[string]svc.Cmd{"stop": svc.Stop, "shutdown": svc.Shutdown, "before a shutdown": svc.PreShutdown} {
		t.Run(name, func(t *testing.T) {
			flushed, arranged := false, false
			work := func(ctx context.Context) error {
				<-ctx.Done()
				flushed = true
				return nil
			}
			requests, status := make(chan svc.ChangeRequest), make(chan svc.Status, 8)
			ended := make(chan uint32)
			go func() {
				_, code := handler{&program{ctx: t.Context(), work: work}, func() { arranged = true }}.Execute(nil, requests, status)
				ended <- code
			}()
			requests <- svc.ChangeRequest{Cmd: svc.Interrogate, CurrentStatus: svc.Status{State: svc.Running}}
			requests <- svc.ChangeRequest{Cmd: cmd}
			if code := <-ended; code != 0 || !flushed || !arranged {
				t.Errorf("code %d, flushed %v, arranged %v", code, flushed, arranged)
			}
			close(status)
			var states []svc.State
			for s := range status {
				states = append(states, s.State)
				if s.State == svc.Running && s.Accepts != 0 && s.Accepts&svc.AcceptPreShutdown == 0 {
					t.Error("does not want to know before a shutdown")
				}
			}
			if want := []svc.State{svc.StartPending, svc.Running, svc.Running, svc.StopPending}; !slices.Equal(states, want) {
				t.Errorf("states %v, want %v", states, want)
			}
		})
	}
}

func TestAStopThatFailsIsAStop(t *testing.T) {
	work := func(ctx context.Context) error {
		<-ctx.Done()
		return errors.New("no room")
	}
	requests, status := make(chan svc.ChangeRequest, 1), make(chan svc.Status, 8)
	requests <- svc.ChangeRequest{Cmd: svc.Stop}
	if specific, code := (handler{&program{ctx: t.Context(), work: work}, func() {}}).Execute(nil, requests, status); specific || code != 0 {
		t.Errorf("specific %v, code %d: Windows starts it again", specific, code)
	}
}

func TestAListOfTextsIsAsWindowsWantsIt(t *testing.T) {
	p, err := multiString([]string{"SeA", "SeB"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := unsafe.Slice(p, 9), []uint16{'S', 'e', 'A', 0, 'S', 'e', 'B', 0, 0}; !slices.Equal(got, want) {
		t.Errorf("got %v", windows.UTF16ToString(got))
	}
	if _, err := multiString([]string{"a\x00b"}); err == nil {
		t.Error("a text with a NUL passes")
	}
}
