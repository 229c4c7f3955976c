package agent

import (
	"context"
	"errors"
	"os/user"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"sekisho/internal/confine"
	"sekisho/internal/endpoint"

	"go.uber.org/zap"
)

// keeps are the capabilities(7) that the agent needs for as long as it runs. What
// only opening needs is given up then: a program that reads names and files of
// strangers all day must not be one that can load kernel modules, mount, or write
// to everybody's files. Found by taking them away one by one (rights_linux_test.go).
var keeps = []string{
	"sys_admin",       // fanotify: kernels from 6.16 on ask for it with every mark of a mount, and mounts come all day
	"dac_read_search", // files of all users: their content's samples, folders by the kernel's handles
	"sys_ptrace",      // /proc of all users' processes: executable, folder, mounts of other namespaces
}

const (
	// openWithin is how long the sensors have to open what they need. One that
	// takes longer goes on by what it can have without rights.
	openWithin = 30 * time.Second
	// steadyBefore is how long the agent must have run before it asks to be started
	// again for a sensor's sake: a sensor that breaks at once would have it do
	// nothing else.
	steadyBefore = 10 * time.Minute
)

// ErrAgain says that the agent stopped to be started again with all its rights.
var ErrAgain = errors.New("a sensor has to be opened anew, with rights that were given up: start the agent again")

// rights is what became of the process's.
type rights struct {
	end context.CancelCauseFunc // ends Run

	mu      sync.Mutex // guards all below
	dropped bool
	problem string
}

// confine gives up what is needed no more, once the sensors work.
func (a *Agent) confine(ctx context.Context) {
	if a.o.Confine == nil || !a.cfg.Load().Limits.DropPrivileges {
		return
	}
	a.awaitSensors(ctx, openWithin)
	if ctx.Err() != nil {
		return
	}
	err := a.o.Confine(keeps...)
	if errors.Is(err, errors.ErrUnsupported) {
		return
	}
	now, _ := confine.Now()
	a.rights.mu.Lock()
	defer a.rights.mu.Unlock()
	a.rights.dropped = true
	if err != nil {
		a.rights.problem = err.Error()
		a.log.Error("rights that are needed no more could not all be given up", zap.Strings("left", now.Capabilities), zap.Error(err))
		return
	}
	a.log.Info("gave up the rights that are needed no more", zap.Strings("left", now.Capabilities), zap.Bool("system calls filtered", now.Filtered))
}

// again starts a sensor again: where rights were given up, by asking for a start
// of the whole agent, if somebody will.
func (a *Agent) again(s *supervised) {
	switch {
	case !a.gaveUp():
		s.again()
	case a.o.Restarted && time.Since(a.started) > steadyBefore:
		a.askForRights(s)
	}
}

// reopen is for a sensor that broke and came back with less than it had: where rights
// were given up, and somebody will, it has the whole agent started again, not before it
// has run for long enough.
func (a *Agent) reopen(s *supervised) {
	if !a.gaveUp() || !a.o.Restarted {
		return
	}
	time.AfterFunc(max(0, steadyBefore-time.Since(a.started)), func() {
		if s.src.Status().State.Trouble() {
			a.askForRights(s)
		}
	})
}

func (a *Agent) gaveUp() bool {
	a.rights.mu.Lock()
	defer a.rights.mu.Unlock()
	return a.rights.dropped
}

func (a *Agent) askForRights(s *supervised) {
	select {
	case <-a.ended: // by itself, meanwhile
	default:
		a.log.Error("stopping, to be started again with all rights", zap.String("sensor", s.src.Name()))
		a.rights.end(ErrAgain)
	}
}

// rightsNow is for status.
func (a *Agent) rightsNow() endpoint.Rights {
	now, err := confine.Now()
	a.rights.mu.Lock()
	defer a.rights.mu.Unlock()
	r := endpoint.Rights{Dropped: a.rights.dropped, Capabilities: now.Capabilities, Filtered: now.Filtered, Problem: a.rights.problem}
	if err != nil && r.Problem == "" {
		r.Problem = err.Error()
	}
	if u, err := user.Current(); err == nil {
		r.User = u.Username
	}
	if lack := lacking(now.Capabilities); r.Problem == "" && len(lack) > 0 {
		r.Problem = "without " + strings.Join(lack, ", ") + " not everything can be seen"
	}
	return r
}

// lacking are those of keeps that there are none of, on a system that has them.
func lacking(have []string) (lack []string) {
	if runtime.GOOS != "linux" {
		return nil
	}
	for _, c := range keeps {
		if !slices.Contains(have, c) {
			lack = append(lack, c)
		}
	}
	return lack
}
