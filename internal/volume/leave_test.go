package volume

import (
	"sync"
	"testing"
	"time"
)

// drivesTable is a table with these drives, `E:\`.
func drivesTable(mounts ...string) *Table {
	t := newTable()
	var all []Volume
	for _, m := range mounts {
		all = append(all, Volume{Mount: m})
	}
	t.set(newMounts(all))
	return t
}

func leavingNow(t *Table) string {
	var s string
	for _, v := range t.All() {
		if v.Leaving {
			s += v.Mount
		}
	}
	return s
}

func TestHandlesAreLetGoOfBeforeAVolumeLeaves(t *testing.T) {
	table := drivesTable(`E:\`, `F:\`)
	changed := table.Watch()
	var mu sync.Mutex
	var asked string
	stop := table.OnLeave(func(mount string) {
		mu.Lock()
		defer mu.Unlock()
		asked += mount
		if leavingNow(table) != mount {
			t.Errorf("%s is to be let go of, but %q are marked", mount, leavingNow(table))
		}
	})
	if !table.leave([]string{`E:\`}, time.Minute) {
		t.Error("it was let go of, but that is not seen")
	}
	if asked != `E:\` {
		t.Errorf("asked to let go of %q", asked)
	}
	select {
	case <-changed:
	default:
		t.Error("the mark is not told")
	}

	// A look at the drives meanwhile changes nothing.
	table.set(newMounts([]Volume{{Mount: `E:\`}, {Mount: `F:\`}}))
	if got := leavingNow(table); got != `E:\` {
		t.Errorf("after a look %q are marked", got)
	}
	<-changed
	table.stay([]string{`E:\`})
	if got := leavingNow(table); got != "" {
		t.Errorf("removal failed, and %q are marked", got)
	}
	select {
	case <-changed:
	default:
		t.Error("that it stays is not told")
	}
	stop()
	table.leave([]string{`F:\`}, time.Minute)
	if asked != `E:\` {
		t.Errorf("asked for %q after the end", asked)
	}

	// It goes; what comes at its place is another one.
	table.set(newMounts([]Volume{{Mount: `E:\`}}))
	table.set(newMounts([]Volume{{Mount: `E:\`}, {Mount: `F:\`}}))
	if got := leavingNow(table); got != "" {
		t.Errorf("%q are marked", got)
	}
}

func TestAHolderThatHangsDoesNotKeepTheSystemWaiting(t *testing.T) {
	table := drivesTable(`E:\`)
	hang := make(chan struct{})
	defer close(hang)
	table.OnLeave(func(string) { <-hang })
	if table.leave([]string{`E:\`}, time.Millisecond) {
		t.Error("nothing was let go of")
	}
	table.stayIfOld(time.Now().Add(leftBehind / 2))
	if leavingNow(table) == "" {
		t.Error("the mark is gone too soon")
	}
	table.stayIfOld(time.Now().Add(2 * leftBehind))
	if leavingNow(table) != "" {
		t.Error("the mark stays for ever")
	}
}
