package procwatch

import (
	"sync"
	"time"

	"sekisho/internal/event"
)

const (
	// factsWait is how long a start waits for what its program's file says of itself.
	// A file that is looked at for the first time is read whole for its signature:
	// 100 MB take half a second. What comes later is there the next time.
	factsWait = time.Second
	// runningWait is the same for what runs at start, all of which is looked at together.
	runningWait = 10 * time.Second
	// maxPrograms bounds what is kept of files; a desktop has a few hundred programs.
	maxPrograms = 1024
	// maxPending bounds the files waiting to be looked at.
	maxPending = 512
	// freshFor is how long a file counts as unchanged without a look.
	freshFor = time.Second
	// laneWidth is how many files are looked at at once, of the machine's own disks
	// and of those that may hang (shares, media) each.
	laneWidth = 2
)

// fileID tells a file from what was in its place before: its volume, its number
// there, its size and when it was last written.
type fileID [4]uint64

// signature is what is known of the signature of a program.
type signature struct {
	exists, trusted, checked bool
	signer                   string // name of the certificate's subject; only of a trusted one
	status                   string // as event.Process.SignatureStatus
}

// programs finds out what the files of programs say of themselves, off the way of
// events. Safe for concurrent use.
type programs struct {
	identify func(path string) (fileID, error)
	version  func(path string) (*event.PE, error)
	verify   func(path string) signature
	// slow reports whether a file lies where a look at it may hang.
	slow func(path string) bool

	own, far chan struct{} // lanes, with a token for each who is in it

	mu      sync.Mutex // guards all below
	byPath  map[string]*program
	pending int
}

func newPrograms() *programs {
	return &programs{
		own: make(chan struct{}, laneWidth), far: make(chan struct{}, laneWidth),
		byPath: map[string]*program{},
	}
}

// program is what the file of a program said of itself at one time.
type program struct {
	asked time.Time
	// looked is closed when what the version resource says is set, verified when all is.
	looked, verified chan struct{}

	id       fileID
	pe       *event.PE
	trouble  string // why the version resource is not known
	signedBy signature
}

// of returns what is known, or will be, of the program at a path, as it is now; nil
// if that is not known or too many others wait.
func (ps *programs) of(path string, now time.Time) *program {
	if path == "" {
		return nil
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	old := ps.byPath[path]
	if old != nil && (!old.done() || now.Sub(old.asked) < freshFor) {
		return old
	}
	if ps.pending >= maxPending {
		return nil
	}
	if old == nil && len(ps.byPath) >= maxPrograms {
		clear(ps.byPath)
	}
	p := &program{asked: now, looked: make(chan struct{}), verified: make(chan struct{})}
	ps.byPath[path] = p
	ps.pending++
	go func() {
		defer func() {
			ps.mu.Lock()
			defer ps.mu.Unlock()
			ps.pending--
		}()
		ps.look(path, p, old)
	}()
	return p
}

// look fills in p. old is what is known of the file that was at the path, nil if
// nothing.
func (ps *programs) look(path string, p, old *program) {
	lane := ps.own
	if ps.slow(path) {
		lane = ps.far
	}
	lane <- struct{}{}
	defer func() { <-lane }()
	defer close(p.verified)
	looked := sync.OnceFunc(func() { close(p.looked) })
	defer looked()
	var err error
	if p.id, err = ps.identify(path); err != nil {
		p.trouble = "read file of program: " + err.Error()
		return
	}
	if old != nil && p.id == old.id && old.signedBy.checked {
		p.pe, p.trouble, p.signedBy = old.pe, old.trouble, old.signedBy
		return
	}
	if p.pe, err = ps.version(path); err != nil {
		p.trouble = "read version resource: " + err.Error()
	}
	looked()
	p.signedBy = ps.verify(path)
}

// done reports whether all is known that can be.
func (p *program) done() bool {
	select {
	case <-p.verified:
		return true
	default:
		return false
	}
}

// wait waits until all is known that can be, or until it has been asked for that long
// ago. It returns what is missing, "" if nothing.
func (p *program) wait(limit time.Duration) string {
	if p == nil {
		return ""
	}
	if !p.done() {
		t := time.NewTimer(limit - time.Since(p.asked))
		defer t.Stop()
		select {
		case <-p.verified:
		case <-t.C:
			return "check signature: not done within " + limit.String()
		}
	}
	return p.trouble
}

// fill sets what is known by now.
func (p *program) fill(x *event.Process) {
	if p == nil {
		return
	}
	select {
	case <-p.looked:
		if p.pe != nil {
			pe := *p.pe // the event's own: it may be filled in further
			x.PE = &pe
		}
	default:
		return
	}
	if s := &p.signedBy; p.done() && s.checked {
		x.Signed, x.SignatureTrusted = event.Some(s.exists), event.Some(s.trusted)
		x.SignatureStatus, x.Signer = s.status, s.signer
	}
}

// trustOf is what an answer of WinVerifyTrust (winerror.h) says of a signature.
func trustOf(code uint32) signature {
	s := signature{exists: true, checked: true, status: "other"}
	switch code {
	case 0:
		s.trusted, s.status = true, "trusted"
	case 0x800B0100, // TRUST_E_NOSIGNATURE
		0x800B0003, // TRUST_E_SUBJECT_FORM_UNKNOWN: no program
		0x800B0001: // TRUST_E_PROVIDER_UNKNOWN
		s.exists, s.status = false, "unsigned"
	case 0x800B0109, // CERT_E_UNTRUSTEDROOT
		0x800B010A, // CERT_E_CHAINING: its issuer is not known here
		0x800B0112: // CERT_E_UNTRUSTEDCA
		s.status = "untrusted-root"
	case 0x800B0101: // CERT_E_EXPIRED
		s.status = "expired"
	case 0x800B010C: // CERT_E_REVOKED
		s.status = "revoked"
	case 0x80096010: // TRUST_E_BAD_DIGEST
		s.status = "changed"
	case 0x800B0111, // TRUST_E_EXPLICIT_DISTRUST
		0x800B0004: // TRUST_E_SUBJECT_NOT_TRUSTED
		s.status = "distrusted"
	}
	return s
}
