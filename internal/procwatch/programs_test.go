package procwatch

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sekisho/internal/event"
)

// fakeFiles is what the files of programs say in a test.
type fakeFiles struct {
	mtime              atomic.Uint64
	versions, verified atomic.Int32
	takes, farTakes    time.Duration // to verify one, and one more on a share
	err                error
}

func (f *fakeFiles) programs() *programs {
	ps := newPrograms()
	ps.identify = func(path string) (fileID, error) {
		if f.err != nil {
			return fileID{}, f.err
		}
		return fileID{0, 0, uint64(len(path)), f.mtime.Load()}, nil
	}
	ps.version = func(path string) (*event.PE, error) {
		f.versions.Add(1)
		return &event.PE{OriginalFileName: path}, nil
	}
	ps.verify = func(path string) signature {
		f.verified.Add(1)
		if ps.slow(path) {
			time.Sleep(f.farTakes)
		}
		time.Sleep(f.takes)
		s := trustOf(0)
		s.signer = "Example Works"
		return s
	}
	ps.slow = func(path string) bool { return strings.HasPrefix(path, `\\`) }
	return ps
}

func TestAFileIsLookedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFiles{takes: 100 * time.Millisecond}
		ps := f.programs()
		for range 3 {
			p := ps.of(`C:\a.exe`, time.Now())
			if why := p.wait(factsWait); why != "" {
				t.Error(why)
			}
			var x event.Process
			p.fill(&x)
			if x.PE == nil || x.PE.OriginalFileName != `C:\a.exe` || x.Signer != "Example Works" || x.SignatureTrusted != event.Some(true) || x.Signed != event.Some(true) || x.SignatureStatus != "trusted" {
				t.Errorf("it says %+v", x)
			}
			x.PE.Company = "of the event"
			time.Sleep(2 * freshFor)
		}
		if f.versions.Load() != 1 || f.verified.Load() != 1 {
			t.Errorf("read %d times, verified %d times", f.versions.Load(), f.verified.Load())
		}
		f.mtime.Add(1)
		p := ps.of(`C:\a.exe`, time.Now())
		p.wait(factsWait)
		if f.versions.Load() != 2 || f.verified.Load() != 2 || p.pe.Company != "" {
			t.Errorf("after a change: read %d times, verified %d times, %+v", f.versions.Load(), f.verified.Load(), p.pe)
		}
	})
}

func TestAStartDoesNotWaitForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFiles{farTakes: time.Minute}
		ps := f.programs()
		began := time.Now()
		var first *program
		for i := range 10 { // a share that hangs
			p := ps.of(fmt.Sprintf(`\\fs1\share\%d.exe`, i), time.Now())
			if first == nil {
				first = p
			}
			if why := p.wait(factsWait); why == "" {
				t.Error("it is not told that the signature is missing")
			}
		}
		var x event.Process
		first.fill(&x)
		if x.PE == nil || x.Signed.OK || x.Signer != "" {
			t.Errorf("what is known by then is not told: %+v", x)
		}
		if d := time.Since(began); d > 10*factsWait {
			t.Errorf("10 starts waited %v", d)
		}
		// The machine's own disk is another lane.
		if why := ps.of(`C:\a.exe`, time.Now()).wait(factsWait); why != "" {
			t.Error(why)
		}
		time.Sleep(time.Hour)
	})
}

func TestWhatWaitsToBeLookedAtIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFiles{takes: time.Second}
		ps := f.programs()
		n := 0
		for i := range 3 * maxPending {
			if ps.of(fmt.Sprintf(`C:\%d.exe`, i), time.Now()) != nil {
				n++
			}
		}
		if n != maxPending {
			t.Errorf("%d wait, want %d", n, maxPending)
		}
		time.Sleep(time.Hour)
		for i := range 3 * maxPrograms {
			ps.of(fmt.Sprintf(`C:\%d.exe`, i), time.Now())
			time.Sleep(time.Second)
		}
		if len(ps.byPath) > maxPrograms {
			t.Errorf("%d are kept", len(ps.byPath))
		}
		time.Sleep(time.Hour)
	})
}

func TestAFileThatCannotBeReadIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFiles{err: errors.New("access is denied")}
		p := f.programs().of(`C:\a.exe`, time.Now())
		if why := p.wait(factsWait); !strings.Contains(why, "access is denied") {
			t.Errorf("it says %q", why)
		}
		var x event.Process
		p.fill(&x)
		if x.PE != nil || x.Signed.OK {
			t.Errorf("it says %+v", x)
		}
	})
	var none *program
	if none.wait(factsWait) != "" {
		t.Error("there is nothing to wait for")
	}
	none.fill(new(event.Process))
}

func TestTrust(t *testing.T) {
	for code, want := range map[uint32]string{0: "trusted", 0x800B0100: "unsigned", 0x800B0109: "untrusted-root", 0x800B0101: "expired", 0x80096010: "changed", 0x800B010C: "revoked", 0x800B0111: "distrusted", 0x80004005: "other"} {
		s := trustOf(code)
		if s.status != want || s.trusted != (code == 0) || s.exists != (want != "unsigned") || !s.checked || s.signer != "" {
			t.Errorf("%#x is %+v, want %q", code, s, want)
		}
	}
}
