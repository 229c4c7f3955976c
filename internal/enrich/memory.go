package enrich

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"sekisho/internal/event"
)

// Bounds of what is remembered of a PC. Judgement: it has some ten volumes and
// one or two open sessions.
const (
	maxVolumes  = 64
	maxSessions = 32

	// maxSession is when a session counts as over though its end was not seen.
	maxSession = 12 * time.Hour
)

// volumes is what is mounted on a PC, oldest first.
type volumes struct {
	list []mounted
}

type mounted struct {
	root   folded // mount point as paths below it begin
	volume event.Volume
}

// root is where a volume's files are: its mount point or drive.
func root(v *event.Volume) (folded, bool) {
	switch {
	case v.DOSName != "":
		return foldPath(strings.TrimRight(v.DOSName, `\`)), true
	case v.MountName != "":
		return foldPath(strings.TrimRight(v.MountName, "/")), true
	}
	return folded{}, false
}

// see remembers what is mounted.
func (vs *volumes) see(e *event.Event) {
	if e.Volume == nil || e.Action != event.VolumeMounted && e.Action != event.VolumeUnmounted {
		return
	}
	at, ok := root(e.Volume)
	if !ok {
		return
	}
	for i := range vs.list {
		if vs.list[i].root == at {
			vs.list = slices.Delete(vs.list, i, i+1)
			break
		}
	}
	if e.Action == event.VolumeUnmounted {
		return
	}
	if len(vs.list) >= maxVolumes {
		vs.list = slices.Delete(vs.list, 0, 1)
	}
	vs.list = append(vs.list, mounted{at, *e.Volume})
}

// holding is the volume a path lies on: the one with the longest mount point.
func (vs *volumes) holding(path string) *event.Volume {
	if path == "" || len(vs.list) == 0 {
		return nil
	}
	p := foldPath(path)
	var best *mounted
	for i := range vs.list {
		m := &vs.list[i]
		if m.root.windows == p.windows && strings.HasPrefix(p.text, m.root.text) &&
			(len(p.text) == len(m.root.text) || p.text[len(m.root.text)] == '/') &&
			(best == nil || len(m.root.text) > len(best.root.text)) {
			best = m
		}
	}
	if best == nil {
		return nil
	}
	return &best.volume
}

// fill tells file events which volume they are on, where they do not say so
// themselves.
func (vs *volumes) fill(e *event.Event) {
	if f := e.File; f != nil && f.Path != "" && (e.Volume == nil || f.VolumeKind == "") {
		if v := vs.holding(f.Path); v != nil {
			if e.Volume == nil && (f.VolumeKind == "" || f.VolumeKind == v.Kind) {
				volume := *v
				e.Volume = &volume
			}
			fill(e, fFileKind, &f.VolumeKind, v.Kind)
			fill(e, fFileShare, &f.Share, v.Share)
		}
	}
	if c := e.Copy; c != nil && c.SourcePath != "" && c.SourceVolumeKind == "" {
		if v := vs.holding(c.SourcePath); v != nil {
			fill(e, fSourceKind, &c.SourceVolumeKind, v.Kind)
			fill(e, fSourceShare, &c.SourceShare, v.Share)
		}
	}
}

// sessions is the remote-control sessions open on a PC, oldest first: processes
// of tools that let others in and have not ended.
type sessions struct {
	list  []session
	began bool // see Stage.SessionBegan
}

type session struct {
	id     string // of the process that opened it
	pid    int64  // 0: not known
	opened time.Time

	approved bool // its tool is
}

// controlling are the categories whose running process is a session that is, or
// can be, open. Tunnels and remote execution run for weeks on servers and say
// nothing of a person at the other end.
func controlling(category string) bool {
	return category == "remote-desktop" || category == "rmm" || category == "malware-rat"
}

// at answers the session that is open at the event, that of the event's own
// process among them, and whether the tools of all that are open are approved.
// Of several it is the oldest, so that the id stays the same while others come
// and go.
func (ss *sessions) at(e *event.Event) (id string, approved bool) {
	if len(ss.list) > 0 && !e.Time.IsZero() {
		ss.list = slices.DeleteFunc(ss.list, func(s session) bool { return e.Time.Sub(s.opened) > maxSession })
	}
	ss.began = false
	p := e.Process
	switch {
	case p == nil:
	case e.Action == event.ProcessStarted:
		ss.end(p) // the pid was given anew: the end of the old process was missed
		if r := p.RemoteTool; r != nil && controlling(r.Category) {
			before, allApproved := ss.open(e.Time)
			ss.began = before == "" || allApproved && !r.Approved.V
			if len(ss.list) >= maxSessions {
				ss.list = slices.Delete(ss.list, 0, 1)
			}
			ss.list = append(ss.list, session{sessionID(e, p), p.PID.V, e.Time, r.Approved.V})
		}
	case e.Action == event.ProcessEnded:
		id, approved = ss.open(e.Time)
		ss.end(p)
		return id, approved
	}
	return ss.open(e.Time)
}

// open looks at the sessions that were open at t: sensors do not agree on the
// order of events to the millisecond.
func (ss *sessions) open(t time.Time) (id string, approved bool) {
	approved = true
	for _, s := range ss.list {
		if !t.IsZero() && s.opened.After(t) {
			continue
		}
		if id == "" {
			id = s.id
		}
		approved = approved && s.approved
	}
	return id, approved && id != ""
}

// end closes what the process opened.
func (ss *sessions) end(p *event.Process) {
	for i, s := range ss.list {
		if p.EntityID != "" && s.id == p.EntityID || p.PID.OK && p.PID.V != 0 && s.pid == p.PID.V {
			ss.list = slices.Delete(ss.list, i, i+1)
			return
		}
	}
}

// sessionID is the id of the process, or one made of what is known.
func sessionID(e *event.Event, p *event.Process) string {
	switch {
	case p.EntityID != "":
		return p.EntityID
	case e.ID != "":
		return e.ID
	}
	return strconv.FormatInt(p.PID.V, 10) + "@" + e.Time.Format(time.RFC3339Nano)
}
