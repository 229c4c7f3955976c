package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"sekisho/internal/config"
	"sekisho/internal/endpoint"

	"go.uber.org/zap"
)

// The control socket is how the commands of this PC (status, selftest, reload)
// speak to the running agent: HTTP with JSON over a Unix socket in the state
// directory that only its owner can open; on Windows over loopback TCP with a
// secret in a file that only administrators can read (see control_*.go).

// maxControlBody bounds what the agent reads from the control socket.
const maxControlBody = 64 << 10

func (a *Agent) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, a.Status()) })
	mux.HandleFunc("GET /cost", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.FormValue("for"))
		if err != nil || d <= 0 || d > maxCostTime {
			answer(w, http.StatusBadRequest, controlError{"for how long? up to " + maxCostTime.String()})
			return
		}
		parts, err := measureCost(r.Context(), d)
		if err != nil {
			answer(w, http.StatusConflict, controlError{err.Error()})
			return
		}
		answer(w, http.StatusOK, parts)
	})
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, _ *http.Request) {
		changes, err := a.Reload()
		if err != nil {
			answer(w, http.StatusConflict, controlError{err.Error()})
			return
		}
		answer(w, http.StatusOK, changes)
	})
	mux.HandleFunc("POST /selftest/{nonce}", func(w http.ResponseWriter, r *http.Request) {
		if err := a.canaries.expect(r.PathValue("nonce")); err != nil {
			answer(w, http.StatusBadRequest, controlError{err.Error()})
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	// The answer waits until the canary is as far as asked, or as long as asked.
	mux.HandleFunc("GET /selftest/{nonce}", func(w http.ResponseWriter, r *http.Request) {
		wait, err := time.ParseDuration(r.FormValue("wait"))
		if err != nil || wait > maxHopsWait {
			wait = maxHopsWait
		}
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		defer cancel()
		hops, err := a.canaries.wait(ctx, r.PathValue("nonce"), r.FormValue("through") == "console")
		if err != nil {
			answer(w, http.StatusNotFound, controlError{err.Error()})
			return
		}
		answer(w, http.StatusOK, hops)
	})
	return http.MaxBytesHandler(mux, maxControlBody)
}

// maxHopsWait bounds how long one question about a self-test waits.
const maxHopsWait = 10 * time.Second

type controlError struct {
	Error string `json:"error"`
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v)
}

const (
	// controlRetry is the pause between two tries to open the control socket.
	controlRetry = 10 * time.Second
	// controlCheck is how often the agent looks whether its socket is still there.
	controlCheck = 5 * time.Second
)

// errControlGone says that the control socket is not the one that was made.
var errControlGone = errors.New("another process removed or replaced it")

// keepControl serves the control socket until ctx is done. Without it the agent
// cannot be asked, but it protects: what is in the way is told in the log, and
// tried again.
func (a *Agent) keepControl(ctx context.Context) {
	told := ""
	for {
		err := a.serveControl(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errControlGone) {
			a.log.Error("the control socket is made anew", zap.String("file", controlPath(a.stateDir)), zap.Error(err))
			continue
		}
		if text := fmt.Sprint(err); text != told {
			told = text
			a.log.Error("status and selftest cannot reach the agent", zap.Error(err))
		}
		select {
		case <-time.After(controlRetry):
		case <-ctx.Done():
			return
		}
	}
}

// serveControl serves until ctx is done, or until the socket is another's or gone:
// errControlGone.
func (a *Agent) serveControl(ctx context.Context) error {
	l, guard, err := listenControl(a.stateDir)
	if err != nil {
		return fmt.Errorf("open control socket: %w", err)
	}
	made, err := os.Lstat(controlPath(a.stateDir))
	if err != nil {
		l.Close()
		return fmt.Errorf("open control socket: %w", err)
	}
	srv := &http.Server{Handler: guard(a.control()), ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 8 << 10}
	ctx, stop := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		defer srv.Close()
		t := time.NewTicker(controlCheck)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
			if !a.ownsControl(made) {
				stop(errControlGone)
				return
			}
		}
	})
	err = srv.Serve(l)
	stop(err)
	watch.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, errControlGone) {
		return cause
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ownsControl reports whether the control socket is the one that was made. Its
// number alone does not tell: file systems give that of a removed file to the next.
func (a *Agent) ownsControl(made os.FileInfo) bool {
	now, err := os.Lstat(controlPath(a.stateDir))
	return err == nil && os.SameFile(made, now) && now.ModTime().Equal(made.ModTime())
}

// ErrNotRunning says that no agent answers in this state directory.
var ErrNotRunning = errors.New("the agent is not running, or you may not ask it")

// Control asks the running agent.
type Control struct {
	c    http.Client
	base string
	auth func() string // "": none is needed
}

// Dial prepares to ask the agent whose state directory this is. Nothing is sent
// yet.
func Dial(stateDir string) *Control {
	dial, auth := dialControl(stateDir)
	return &Control{
		c:    http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }, DisableKeepAlives: true}},
		base: "http://agent", auth: auth,
	}
}

// Status asks for the agent's status.
func (c *Control) Status(ctx context.Context) (endpoint.Status, error) {
	var st endpoint.Status
	return st, c.call(ctx, "GET", "/status", &st)
}

// Cost asks the agent to measure for a while, at most a minute, what its parts
// take of the CPU: percent of a core by part, a sensor's name or "rules" or
// "other". It is a sample a hundred times a second of CPU, so that little work
// shows roughly.
func (c *Control) Cost(ctx context.Context, d time.Duration) (parts map[string]float64, err error) {
	return parts, c.call(ctx, "GET", "/cost?for="+d.String(), &parts)
}

// Reload asks the agent to read its settings and rules again, and answers what
// changed. On a problem the old ones stay, and the error tells each.
func (c *Control) Reload(ctx context.Context) (changes []config.Change, err error) {
	return changes, c.call(ctx, "POST", "/reload", &changes)
}

// Expect announces a self-test's canary, so that the agent marks it as a test.
func (c *Control) Expect(ctx context.Context, nonce string) error {
	return c.call(ctx, "POST", "/selftest/"+nonce, nil)
}

// Hops asks how far a canary has come, waiting until it is on disk (or, through
// the console, acknowledged), until shortly before ctx ends, or ten seconds.
func (c *Control) Hops(ctx context.Context, nonce string, throughConsole bool) (Hops, error) {
	wait := maxHopsWait
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, max(time.Until(end)-200*time.Millisecond, 0))
	}
	path := "/selftest/" + nonce + "?wait=" + wait.String()
	if throughConsole {
		path += "&through=console"
	}
	var h Hops
	return h, c.call(ctx, "GET", path, &h)
}

func (c *Control) call(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return err
	}
	if secret := c.auth(); secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	resp, err := c.c.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return fmt.Errorf("%w: %v", ErrNotRunning, op.Err)
		}
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		var e controlError
		if json.Unmarshal(body, &e) == nil && e.Error != "" {
			return errors.New(e.Error)
		}
		return fmt.Errorf("agent answered %s", resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}
