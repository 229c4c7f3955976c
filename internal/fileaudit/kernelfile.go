package fileaudit

import (
	"errors"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf16"

	"sekisho/internal/etw"
	"sekisho/internal/guid"
	"sekisho/internal/volume"
	"sekisho/internal/winpath"
)

// Events of the provider Microsoft-Windows-Kernel-File, by its manifest of Windows 10
// 1803 (github.com/repnz/etw-providers-docs, Manifests-Win10-17134), in the versions
// 0 (up to Windows 8) and 1. Pointers are as wide as the record says. What follows the
// last field that we read is left alone.
//
//	12 Create       v0 Irp, ThreadId, FileObject pointers; v1 Irp, FileObject pointers,
//	                IssuingThreadId u32; then CreateOptions, CreateAttributes,
//	                ShareAccess u32, FileName UTF-16
//	13 Cleanup      v0 Irp, ThreadId, FileObject, FileKey pointers;
//	14 Close        v1 Irp, FileObject, FileKey pointers, IssuingThreadId u32
//	15 Read         v0 ByteOffset u64, Irp, ThreadId, FileObject, FileKey pointers,
//	16 Write        IOSize, IOFlags u32; v1 ByteOffset u64, Irp, FileObject, FileKey
//	                pointers, IssuingThreadId, IOSize, IOFlags, ExtraFlags u32
//	26 DeletePath   v0 Irp, ThreadId, FileObject, FileKey, ExtraInformation pointers,
//	27 RenamePath   InfoClass u32; v1 Irp, FileObject, FileKey, ExtraInformation pointers,
//	                IssuingThreadId, InfoClass u32; then FilePath UTF-16: of what is
//	                deleted, and the new one of what is renamed
const (
	fileCreate  = 12
	fileCleanup = 13 // the last handle is closed
	fileClose   = 14 // the file object ends
	fileRead    = 15
	fileWrite   = 16
	fileDelete  = 26
	fileRename  = 27

	// Of CreateOptions (NtCreateFile): the options in the low 24 bits, above them
	// what is to be done if there is such a file, or none (wdm.h).
	optionDirectory     = 0x1
	optionDeleteOnClose = 0x1000
	optionByFileID      = 0x2000 // FileName is no name
	dispositionOpen     = 1      // FILE_OPEN: only what is there

	// Of IOFlags: the memory manager reads or writes, IRP_PAGING_IO and
	// IRP_SYNCHRONOUS_PAGING_IO (wdm.h).
	ioPaging = 0x2 | 0x40

	// maxOpenFiles bounds the file objects that are followed, at some 300 bytes each.
	maxOpenFiles = 1 << 15
	// idleOpenFor is how long one is kept that nothing is done with: a file is read
	// or written at once, mostly.
	idleOpenFor = time.Minute
	// maxStrange is how many events may not be understood, maxUnnamed how many there
	// may be without a file's name, before another mechanism is taken.
	maxStrange = 100
	maxUnnamed = 100_000
)

// kernelFileProvider is Microsoft-Windows-Kernel-File.
var kernelFileProvider = guid.Must("{EDD08927-9CC4-4E65-B970-C2560FB5C289}")

var errFileEvent = errors.New("file event of event tracing is cut off, or of a version that is not known")

// interest says what of a file is worth to be told.
type interest uint8

const (
	wantWrites interest = 1 << iota
	wantReads
	wantNames  // renames and deletions
	wantCopies // only what is made new: it may be a copy of what was read elsewhere
	wantHeld   // it is known to hold something of a watched place
	wantRemote // a server answers for it, who is not asked
)

// scope says which files are of interest; never changed once it is made.
type scope struct {
	devices []device
	names   winpath.Names
}

// device is a volume by its NT name.
type device struct {
	units []uint16 // of its name, in capitals
	dos   string   // "E:", or the folder that it is mounted on; "" for what has servers below
	dev   volume.Dev
	want  interest // of everything on it
	below []folder // of what is below these more
}

type folder struct {
	units []uint16 // from the device's name on, in capitals: `\HR`
	want  interest
}

// upperUnits is UTF-16 in capitals.
func upperUnits(s string) []uint16 {
	u := utf16.Encode([]rune(s))
	for i := range u {
		u[i] = upperUnit(u[i])
	}
	return u
}

// upperUnit is a UTF-16 unit in capitals, as far as NTFS compares: unit by unit.
func upperUnit(u uint16) uint16 {
	switch {
	case u < 'a':
		return u
	case u <= 'z':
		return u - 0x20
	case u < 0x80:
		return u
	}
	if r := unicode.ToUpper(rune(u)); r <= 0xffff {
		return uint16(r)
	}
	return u
}

func unitAt(b []byte, i int) uint16 { return uint16(b[2*i]) | uint16(b[2*i+1])<<8 }

// hasUnits reports whether raw UTF-16 begins with units in capitals, whatever its
// own case is. It looks from the end: names of devices differ there.
func hasUnits(b []byte, want []uint16) bool {
	if len(b) < 2*len(want) {
		return false
	}
	for i := len(want) - 1; i >= 0; i-- {
		if u := unitAt(b, i); u != want[i] && upperUnit(u) != want[i] {
			return false
		}
	}
	return true
}

// find returns the device that a raw name is on and what is of interest of it, nil
// if nothing is. It allocates nothing: nearly all that happens on a PC ends here.
func (s *scope) find(name []byte) (*device, interest) {
	// `\Device\HarddiskVolume3\`: the device ends before the third backslash.
	const least = len(`\Device\`)
	end := least
	for n := len(name) / 2; ; end++ {
		if end >= n {
			return nil, 0
		}
		if unitAt(name, end) == '\\' {
			break
		}
	}
	for i := range s.devices {
		d := &s.devices[i]
		if len(d.units) != end || !hasUnits(name, d.units) {
			continue
		}
		want, rest := d.want, name[2*end:]
		for j := range d.below {
			f := &d.below[j]
			if !hasUnits(rest, f.units) {
				continue
			}
			if len(rest) == 2*len(f.units) || f.units[len(f.units)-1] == '\\' {
				want |= f.want
			} else if next := unitAt(rest, len(f.units)); next == '\\' || next == ':' { // it may be a file with a stream
				want |= f.want
			}
		}
		return d, want
	}
	return nil, 0
}

// openFile is a file object of interest.
type openFile struct {
	path   string
	stream string
	short  bool
	dev    volume.Dev
	pid    int
	want   interest
	extent int64 // the furthest byte that was read or written
	fresh  bool  // made, or emptied, by opening
	read   bool
	wrote  bool
	cached bool // written to by its program; what the memory manager writes is the same once more
	doomed bool // deleted when it is closed
	dir    bool
	since  time.Time
}

// kernelFiles turns events of the kernel's file provider into records. Its event
// method is called by one goroutine; all others may be called by any.
type kernelFiles struct {
	self  uint32
	scope atomic.Pointer[scope]
	tell  func(record) // given what lacks what only the file itself can say
	lose  func(n uint64)

	open     map[uint64]*openFile // by file object; the goroutine's own
	began    time.Time
	lastRead atomic.Int64  // when a file of interest was last read, in ns since began; 0: never
	seen     atomic.Uint64 // events, of interest or not
	strange  atomic.Uint64 // of those that were not understood
	named    atomic.Bool   // a name of the form that is expected was seen

	heldMu sync.RWMutex
	held   map[uint64]fileKey // by heldKey of their paths
	some   atomic.Bool        // there are some
	seed   maphash.Seed
}

func newKernelFiles(self int, tell func(record), lose func(uint64)) *kernelFiles {
	k := &kernelFiles{self: uint32(self), tell: tell, lose: lose, open: map[uint64]*openFile{}, began: time.Now(), held: map[uint64]fileKey{}, seed: maphash.MakeSeed()}
	k.scope.Store(&scope{})
	return k
}

// event takes one event.
func (k *kernelFiles) event(r *etw.Record) {
	k.seen.Add(1)
	if r.PID == k.self || r.Provider != kernelFileProvider {
		return
	}
	if r.Version > 1 && r.ID >= fileCreate && r.ID <= fileRename {
		k.strange.Add(1)
		return
	}
	var err error
	switch r.ID {
	case fileCreate:
		err = k.create(r)
	case fileRead, fileWrite:
		err = k.transfer(r)
	case fileCleanup, fileClose:
		err = k.end(r)
	case fileDelete, fileRename:
		err = k.name(r)
	}
	if err != nil {
		k.strange.Add(1)
	}
}

// trouble says, some time after the beginning, why the events are of no use; "" if
// they are.
func (k *kernelFiles) trouble() string {
	switch seen := k.seen.Load(); {
	case seen == 0:
		return "it was granted, and no event comes"
	case k.strange.Load() > maxStrange:
		return "Windows tells of files in a form that is not known"
	case seen > maxUnnamed && !k.named.Load():
		return "Windows names files in a form that is not known"
	}
	return ""
}

// parseCreate reads a Create event. The name is a part of the record's data.
func parseCreate(r *etw.Record) (object uint64, options uint32, name []byte, err error) {
	p := r.Reader()
	p.Pointer()
	if r.Version == 0 {
		p.Pointer()
	}
	object = p.Pointer()
	if r.Version > 0 {
		p.U32()
	}
	options = p.U32()
	p.U32()
	p.U32()
	if p.Len() == 0 || p.Err() != nil || r.Version > 1 {
		return 0, 0, nil, errFileEvent
	}
	return object, options, p.RawUTF16(), nil
}

// parseTransfer reads a Read or Write event.
func parseTransfer(r *etw.Record) (object uint64, end int64, flags uint32, err error) {
	p := r.Reader()
	offset := p.U64()
	p.Pointer()
	if r.Version == 0 {
		p.Pointer()
	}
	object = p.Pointer()
	p.Pointer()
	if r.Version > 0 {
		p.U32()
	}
	size := p.U32()
	flags = p.U32()
	if p.Err() != nil || r.Version > 1 {
		return 0, 0, 0, errFileEvent
	}
	if offset > 1<<62 { // FILE_WRITE_TO_END_OF_FILE and the like: where that is is not told
		offset = 0
	}
	return object, int64(offset) + int64(size), flags, nil
}

// parseObject reads the file object of a Cleanup or Close event.
func parseObject(r *etw.Record) (object uint64, err error) {
	p := r.Reader()
	p.Pointer()
	if r.Version == 0 {
		p.Pointer()
	}
	object = p.Pointer()
	if p.Err() != nil || r.Version > 1 {
		return 0, errFileEvent
	}
	return object, nil
}

// parsePath reads a DeletePath or RenamePath event.
func parsePath(r *etw.Record) (object uint64, path []byte, err error) {
	p := r.Reader()
	p.Pointer()
	if r.Version == 0 {
		p.Pointer()
	}
	object = p.Pointer()
	p.Pointer()
	p.Pointer()
	if r.Version > 0 {
		p.U32()
	}
	p.U32()
	if p.Len() == 0 || p.Err() != nil || r.Version > 1 {
		return 0, nil, errFileEvent
	}
	return object, p.RawUTF16(), nil
}

// create takes an opening.
func (k *kernelFiles) create(r *etw.Record) error {
	object, options, name, err := parseCreate(r)
	if err != nil {
		return err
	}
	delete(k.open, object) // its end was lost
	if len(name) > 16 && unitAt(name, 1)|0x20 == 'd' && unitAt(name, 7) == '\\' && !k.named.Load() {
		k.named.Store(true)
	}
	s := k.scope.Load()
	d, want := s.find(name)
	if d == nil || options&optionByFileID != 0 {
		return nil
	}
	fresh := options>>24 != dispositionOpen
	if want&(wantWrites|wantReads|wantNames) == 0 {
		if k.some.Load() {
			if k.holds(d, name[2*len(d.units):]) {
				want |= wantReads | wantHeld
			}
		}
		if want&wantHeld == 0 && !(want&wantCopies != 0 && fresh) {
			return nil
		}
	}
	if options&optionDirectory != 0 && want&wantNames == 0 {
		return nil
	}
	p := winpath.Canonical(winpath.DecodeUTF16(name), s.names)
	if d.dos == "" && !isFileShare(p.Path) {
		return nil
	}
	k.makeRoom(r.Time)
	k.open[object] = &openFile{
		path: p.Path, stream: p.Stream, short: p.Short, dev: d.dev, pid: int(r.PID), want: want,
		fresh: fresh && options>>24 != 3, // FILE_OPEN_IF leaves what is there as it is
		dir:   options&optionDirectory != 0, doomed: options&optionDeleteOnClose != 0, since: r.Time,
	}
	return nil
}

// makeRoom forgets file objects if there are too many: first those that nothing was
// done with for a while, most of which were never opened. That an opening failed is
// told by an event for each operation on the PC, which would cost more.
func (k *kernelFiles) makeRoom(now time.Time) {
	if len(k.open) < maxOpenFiles {
		return
	}
	for object, f := range k.open {
		if !f.read && !f.wrote && now.Sub(f.since) > idleOpenFor {
			delete(k.open, object)
		}
	}
	if len(k.open) > maxOpenFiles/4*3 {
		clear(k.open)
		k.lose(1)
	}
}

// isFileShare reports whether a path lies in a share that has files, not pipes.
func isFileShare(path string) bool {
	share := winpath.Share(path)
	name := share[strings.LastIndexByte(share, '\\')+1:]
	return share != "" && len(path) > len(share) && !strings.EqualFold(name, "IPC$") && !strings.EqualFold(name, "PIPE") && !strings.EqualFold(name, "MAILSLOT")
}

// transfer takes a reading or writing.
func (k *kernelFiles) transfer(r *etw.Record) error {
	object, end, flags, err := parseTransfer(r)
	if err != nil {
		return err
	}
	f := k.open[object]
	if f == nil {
		return nil
	}
	if r.ID == fileWrite {
		paging := flags&ioPaging != 0
		if paging && f.cached {
			return nil
		}
		f.wrote, f.cached = true, f.cached || !paging
	} else {
		if flags&ioPaging != 0 && int(r.PID) != f.pid {
			return nil // read ahead
		}
		if !f.read && f.want&wantReads != 0 {
			f.read = true
			k.push(f, recOpened, r.Time)
		}
		f.read = true
	}
	f.extent = max(f.extent, end)
	return nil
}

// end takes the end of the last handle of a file object, or its own.
func (k *kernelFiles) end(r *etw.Record) error {
	object, err := parseObject(r)
	if err != nil {
		return err
	}
	f := k.open[object]
	if f == nil {
		return nil
	}
	switch {
	case f.doomed:
		if f.want&wantNames != 0 {
			k.push(f, recDeleted, r.Time)
		}
		delete(k.open, object)
		return nil
	case f.dir:
	default:
		if f.read && f.want&wantReads != 0 {
			k.push(f, recRead, r.Time)
		}
		if (f.wrote || f.fresh) && f.want&(wantWrites|wantCopies|wantHeld) != 0 {
			k.push(f, recWrote, r.Time)
		}
	}
	// What is written between the two is by memory maps.
	f.read, f.wrote, f.fresh = false, false, false
	if r.ID == fileClose {
		delete(k.open, object)
	}
	return nil
}

// name takes a rename or a deletion.
func (k *kernelFiles) name(r *etw.Record) error {
	object, name, err := parsePath(r)
	if err != nil {
		return err
	}
	f := k.open[object]
	if r.ID == fileDelete {
		if f != nil {
			f.doomed = true // done when it is closed
		}
		return nil
	}
	s := k.scope.Load()
	d, want := s.find(name)
	// A copy that waits on a local disk may get its final name.
	if d == nil || f == nil && want&wantNames == 0 && !(want&wantCopies != 0 && k.sinceRead() <= readFor) {
		return nil
	}
	p := winpath.Canonical(winpath.DecodeUTF16(name), s.names)
	if f == nil {
		f = &openFile{pid: int(r.PID), dev: d.dev, want: want}
	}
	from := f.path
	f.path, f.stream, f.short = p.Path, p.Stream, p.Short
	rec := k.record(f, recRenamed, r.Time)
	rec.from = from
	k.tell(rec)
	if f.want&wantHeld != 0 {
		k.moveHeld(from, p.Path)
	}
	f.want |= want
	return nil
}

func (k *kernelFiles) push(f *openFile, kind recordKind, at time.Time) {
	if kind == recOpened || kind == recRead {
		k.lastRead.Store(max(int64(time.Since(k.began)), 1))
	}
	rec := k.record(f, kind, at)
	if kind == recWrote && f.want&(wantWrites|wantHeld) == 0 {
		rec.idle = k.sinceRead() > readFor
	}
	k.tell(rec)
}

// sinceRead is how long ago a file of interest was last read.
func (k *kernelFiles) sinceRead() time.Duration {
	last := k.lastRead.Load()
	if last == 0 {
		return keepFor
	}
	return time.Since(k.began) - time.Duration(last)
}

func (k *kernelFiles) record(f *openFile, kind recordKind, at time.Time) record {
	size := f.extent
	if kind != recWrote && kind != recRead {
		size = -1
	}
	return record{kind: kind, at: at, pid: f.pid, path: f.path, size: size, dev: f.dev, dir: f.dir, names: true, stream: f.stream, want: f.want, short: f.short}
}

// heldKey is a hash of a raw name below a device, whatever its case is.
func (k *kernelFiles) heldKey(d *device, rest []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(k.seed)
	_, _ = h.WriteString(d.dos)
	var buf [64]byte
	n := 0
	for i := range len(rest) / 2 {
		u := upperUnit(unitAt(rest, i))
		buf[n], buf[n+1] = byte(u), byte(u>>8)
		if n += 2; n == len(buf) {
			_, _ = h.Write(buf[:])
			n = 0
		}
	}
	_, _ = h.Write(buf[:n])
	return h.Sum64()
}

// keyOf is the same of a path as events have it; false if it is on no device.
func (k *kernelFiles) keyOf(path string) (uint64, bool) {
	s := k.scope.Load()
	for i := range s.devices {
		if d := &s.devices[i]; d.dos != "" && isBelow(path, d.dos) {
			var b []byte
			for _, u := range utf16.Encode([]rune(path[len(d.dos):])) {
				b = append(b, byte(u), byte(u>>8))
			}
			return k.heldKey(d, b), true
		}
	}
	return 0, false
}

// isBelow reports whether a path of Windows is a device's name or lies below it.
func isBelow(path, dos string) bool {
	return len(path) >= len(dos) && strings.EqualFold(path[:len(dos)], dos) && (len(path) == len(dos) || path[len(dos)] == '\\')
}

func (k *kernelFiles) holds(d *device, rest []byte) bool {
	key := k.heldKey(d, rest)
	k.heldMu.RLock()
	defer k.heldMu.RUnlock()
	_, ok := k.held[key]
	return ok
}

// follow makes it tell reads of a file that holds something of a watched place.
func (k *kernelFiles) follow(path string, id fileKey) {
	key, ok := k.keyOf(path)
	if !ok {
		return
	}
	k.heldMu.Lock()
	k.held[key] = id
	k.some.Store(true)
	k.heldMu.Unlock()
}

func (k *kernelFiles) unfollow(path string, id fileKey) {
	key, ok := k.keyOf(path)
	k.heldMu.Lock()
	defer k.heldMu.Unlock()
	if ok && k.held[key] == id {
		delete(k.held, key)
	} else { // it was renamed
		for key, x := range k.held {
			if x == id {
				delete(k.held, key)
				break
			}
		}
	}
	k.some.Store(len(k.held) > 0)
}

func (k *kernelFiles) moveHeld(from, to string) {
	old, ok := k.keyOf(from)
	if !ok {
		return
	}
	k.heldMu.Lock()
	id, ok := k.held[old]
	delete(k.held, old)
	k.heldMu.Unlock()
	if ok {
		k.follow(to, id)
	}
}

// watch says what is of interest from now on: what of volumes, and of folders on them,
// with paths as events have them.
func (k *kernelFiles) watch(volumes []watchedVolume, folders []watchedFolder) {
	s := &scope{names: winpath.Names{}}
	for _, v := range volumes {
		s.names[strings.ToLower(v.nt)] = v.dos
		s.devices = append(s.devices, device{units: upperUnits(v.nt), dos: v.dos, dev: v.dev, want: v.want})
	}
	for _, f := range folders {
		on := -1
		for i := range s.devices {
			if d := &s.devices[i]; d.dos != "" && isBelow(f.path, d.dos) && (on < 0 || len(d.dos) > len(s.devices[on].dos)) {
				on = i
			}
		}
		if on >= 0 {
			d := &s.devices[on]
			d.below = append(d.below, folder{upperUnits(f.path[len(d.dos):]), f.want})
		}
	}
	for _, name := range winpath.Redirectors {
		s.devices = append(s.devices, device{units: upperUnits(strings.TrimSuffix(name, `\`)), want: wantWrites | wantReads | wantNames | wantRemote})
	}
	k.scope.Store(s)
}

// watchedVolume is a volume by its NT name (`\Device\HarddiskVolume3`) and as events
// name it ("C:").
type watchedVolume struct {
	nt, dos string
	dev     volume.Dev
	want    interest
}

type watchedFolder struct {
	path string
	want interest
}
