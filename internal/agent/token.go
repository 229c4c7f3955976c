package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/enroll"

	"go.uber.org/zap"
)

// maxToken bounds what is read as a token, in bytes.
const maxToken = 16 << 10

// The pauses between two tries to enrol by a token that waits: where only the
// way to the console is missing, and where the token itself was refused.
const (
	enrolRetry   = time.Minute
	refusedRetry = time.Hour
)

// WaitingFile is where an enrolment token waits for the agent of these settings.
func WaitingFile(settingsFile string) string {
	return filepath.Join(filepath.Dir(settingsFile), "enroll.token")
}

// WaitingToken is the enrolment token that was left on this PC: by an installer
// in a file beside the settings or, on Windows, by group policy in the registry.
// from is where it was found; "" and no error: there is none.
func WaitingToken(settingsFile string) (token, from string, err error) {
	from = WaitingFile(settingsFile)
	if err := secureSecret(from); err != nil {
		return "", from, err
	}
	switch token, err = ReadToken(from); {
	case err == nil && token != "":
		return token, from, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", from, err
	}
	if token, from = policyToken(); token == "" {
		return "", "", nil
	}
	return token, from, nil
}

// ReadToken reads an enrolment token from a file, sealed or not.
func ReadToken(file string) (string, error) {
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxToken))
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	token, err := enroll.OpenSecret(string(b))
	if err != nil {
		return "", fmt.Errorf("token: %s: %w", file, err)
	}
	return token, nil
}

// enrol enrols the PC by the token that waits for it, if there is one and the
// last try is long enough ago. A token file is deleted when it has served.
func (l *link) enrol(ctx context.Context) {
	token, from, err := WaitingToken(l.a.o.ConfigFile)
	if err != nil {
		l.notEnrolled(err)
		return
	}
	if token == "" || token == l.tried && time.Now().Before(l.tryAgain) {
		return
	}
	if from == WaitingFile(l.a.o.ConfigFile) {
		// It may wait long, and in a backup.
		if err := enroll.SealFile(from); err != nil {
			l.a.log.Warn("the token waits in plain", zap.Error(err))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	got, err := enroll.Enroll(ctx, token, endpoint.Identity{
		HostID: l.a.host.ID, HostName: l.a.host.Name, OS: l.a.host.OSType, OSVersion: l.a.osVersion, AgentVersion: l.a.o.Version,
	}, l.dir)
	if err != nil {
		l.tried, l.tryAgain = token, time.Now().Add(enrolRetry)
		if e, ok := errors.AsType[*enroll.Error](err); ok && !e.Passing() {
			l.tryAgain = time.Now().Add(refusedRetry)
		}
		l.notEnrolled(fmt.Errorf("%s: %w", from, err))
		return
	}
	l.notEnrolled(nil)
	l.a.log.Info("enrolled", zap.String("token", from), zap.String("console", got.Console), zap.String("agent", got.AgentID()))
	if from == WaitingFile(l.a.o.ConfigFile) {
		if err := os.Remove(from); err != nil {
			l.a.log.Warn("the token has served and could not be deleted", zap.Error(err))
		}
	}
}

// notEnrolled keeps why enrolling did not work; what is new is logged.
func (l *link) notEnrolled(err error) {
	l.mu.Lock()
	was := l.enrolling
	l.enrolling = err
	l.mu.Unlock()
	if err != nil && (was == nil || was.Error() != err.Error()) {
		l.a.log.Warn("not enrolled", zap.Error(err))
	}
}
