package cfgmgr

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/windows"

	"sekisho/internal/guid"
)

var (
	cfgmgr32       = windows.NewLazySystemDLL("cfgmgr32.dll")
	procRegister   = cfgmgr32.NewProc("CM_Register_Notification")
	procUnregister = cfgmgr32.NewProc("CM_Unregister_Notification")
	procListSize   = cfgmgr32.NewProc("CM_Get_Device_Interface_List_SizeW")
	procList       = cfgmgr32.NewProc("CM_Get_Device_Interface_ListW")
	procLocate     = cfgmgr32.NewProc("CM_Locate_DevNodeW")
	procParent     = cfgmgr32.NewProc("CM_Get_Parent")
	procChild      = cfgmgr32.NewProc("CM_Get_Child")
	procSibling    = cfgmgr32.NewProc("CM_Get_Sibling")
	procID         = cfgmgr32.NewProc("CM_Get_Device_IDW")
	procProperty   = cfgmgr32.NewProc("CM_Get_DevNode_PropertyW")
)

// Available returns nil where the configuration manager tells of devices, else an
// error that wraps errors.ErrUnsupported. Where it is not nil, nothing else of
// this package may be called: what other systems have by these names may end the
// process.
func Available() error {
	for _, p := range []*windows.LazyProc{procRegister, procUnregister, procListSize, procList, procLocate, procParent, procChild, procSibling, procID, procProperty} {
		if p.Find() != nil {
			return fmt.Errorf("cfgmgr32.dll has no %s (Windows 8 and newer have it): %w", p.Name, errors.ErrUnsupported)
		}
	}
	return nil
}

// call calls a function that returns a CONFIGRET. What pointers among args point to
// is kept where it is meanwhile.
//
//go:uintptrescapes
func call(p *windows.LazyProc, args ...uintptr) error {
	if r, _, _ := p.Call(args...); uint32(r) != 0 {
		return Error(uint32(r))
	}
	return nil
}

// filter is CM_NOTIFY_FILTER (cfgmgr32.h): the union holds a class, a handle or
// an instance id of MAX_DEVICE_ID_LEN units, the largest.
type filter struct {
	size, flags, typ, reserved uint32
	handle                     windows.Handle // of the union
	_                          [400 - unsafe.Sizeof(windows.Handle(0))]byte
}

// Listener is a registration. Close ends it.
type Listener struct {
	id     uintptr
	handle uintptr
}

// registry is who is called back. The system gets a number, never a pointer.
var registry struct {
	sync.Mutex
	last uintptr
	by   map[uintptr]func(Event)
}

// callback is what the system calls, on threads of its own: PCM_NOTIFY_CALLBACK.
// It is made once, for callbacks are never freed.
var callback = sync.OnceValue(func() uintptr {
	return windows.NewCallback(func(_, context, action uintptr, data *byte, size uintptr) uintptr {
		registry.Lock()
		f := registry.by[context]
		registry.Unlock()
		if f == nil || data == nil {
			return 0
		}
		size &= 0xffffffff // a DWORD: what stands above it is not ours
		if e, err := Decode(uint32(action), unsafe.Slice(data, min(size, maxData))); err == nil {
			f(e)
		}
		return 0 // ERROR_SUCCESS; anything else would veto a removal
	})
})

// maxData bounds a notification: a path has at most 32,767 units.
const maxData = 64<<10 + 64

// Listen has f called when interfaces of a class come and go. f runs on a thread
// of the system and returns at once. Interfaces that are there already are not
// told; ask for [Interfaces] after Listen, and some may come twice.
func Listen(class guid.GUID, f func(Event)) (*Listener, error) {
	x := filter{typ: filterOfClass}
	*(*guid.GUID)(unsafe.Pointer(&x.handle)) = class
	l, err := register(&x, f)
	if err != nil {
		return nil, fmt.Errorf("listen for devices of class %v: %w", class, err)
	}
	return l, nil
}

// Watch has f called when the device behind a handle, of a volume say, is to be
// removed, is removed or has something to tell. The handle may be closed
// afterwards. The system waits for f to return before it removes the device, so f
// closes what is open there, quickly.
func Watch(h windows.Handle, f func(Event)) (*Listener, error) {
	l, err := register(&filter{typ: filterOfNode, handle: h}, f)
	if err != nil {
		return nil, fmt.Errorf("watch a device: %w", err)
	}
	return l, nil
}

func register(x *filter, f func(Event)) (*Listener, error) {
	x.size = uint32(unsafe.Sizeof(*x))
	registry.Lock()
	registry.last++
	l := &Listener{id: registry.last}
	if registry.by == nil {
		registry.by = map[uintptr]func(Event){}
	}
	registry.by[l.id] = f
	registry.Unlock()
	if err := call(procRegister, uintptr(unsafe.Pointer(x)), l.id, callback(), uintptr(unsafe.Pointer(&l.handle))); err != nil {
		l.forget()
		return nil, err
	}
	return l, nil
}

func (l *Listener) forget() {
	registry.Lock()
	defer registry.Unlock()
	delete(registry.by, l.id)
}

// Close ends the registration and waits for calls under way, so it must not be
// called from within one.
func (l *Listener) Close() error {
	defer l.forget()
	if err := call(procUnregister, l.handle); err != nil {
		return fmt.Errorf("end device notifications: %w", err)
	}
	return nil
}

// maxList bounds a list of interfaces, in UTF-16 units: 4,000 paths of 250.
const maxList = 1 << 20

// Interfaces returns the paths of the interfaces of a class that are there now:
// of all devices, or of that with an instance id if one is given.
func Interfaces(class guid.GUID, instance string) ([]string, error) {
	var id *uint16
	if instance != "" {
		var err error
		if id, err = windows.UTF16PtrFromString(instance); err != nil {
			return nil, fmt.Errorf("list interfaces of %q: %w", instance, err)
		}
	}
	for range 8 { // it may grow between two calls
		var n uint32
		if err := call(procListSize, uintptr(unsafe.Pointer(&n)), uintptr(unsafe.Pointer(&class)), uintptr(unsafe.Pointer(id)), 0); err != nil {
			return nil, fmt.Errorf("list interfaces of class %v: %w", class, err)
		}
		if n == 0 {
			return nil, nil
		}
		if n > maxList {
			return nil, fmt.Errorf("list interfaces of class %v: more than %d characters", class, maxList)
		}
		buf := make([]byte, 2*n)
		err := call(procList, uintptr(unsafe.Pointer(&class)), uintptr(unsafe.Pointer(id)), uintptr(unsafe.Pointer(&buf[0])), uintptr(n), 0)
		switch {
		case errors.Is(err, bufferSmall):
			continue
		case errors.Is(err, noSuchInterface):
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("list interfaces of class %v: %w", class, err)
		}
		return texts(buf), nil
	}
	return nil, fmt.Errorf("list interfaces of class %v: %w", class, bufferSmall)
}

// Node is a device in the tree of devices, DEVINST. It is valid until the PC is
// started again, also when its device goes.
type Node uint32

// Locate returns the device with an instance id that is there now.
func Locate(instance string) (n Node, err error) {
	id, err := windows.UTF16PtrFromString(instance)
	if err == nil {
		err = call(procLocate, uintptr(unsafe.Pointer(&n)), uintptr(unsafe.Pointer(id)), 0)
	}
	if err != nil {
		return 0, fmt.Errorf("look up device %s: %w", instance, err)
	}
	return n, nil
}

// Parent returns the device above; ok is false at the root of the tree.
func (n Node) Parent() (parent Node, ok bool) { return n.step(procParent) }

// Child returns the first of the devices below, which Sibling leads on from.
func (n Node) Child() (child Node, ok bool) { return n.step(procChild) }

// Sibling returns the next device below the same one.
func (n Node) Sibling() (next Node, ok bool) { return n.step(procSibling) }

func (n Node) step(p *windows.LazyProc) (to Node, ok bool) {
	err := call(p, uintptr(unsafe.Pointer(&to)), uintptr(n), 0)
	return to, err == nil
}

// ID returns the instance id, `USB\VID_0951&PID_1666\60A44C`; "" if the device is
// gone.
func (n Node) ID() string {
	var buf [2 * 201]byte // MAX_DEVICE_ID_LEN and a NUL
	if call(procID, uintptr(n), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)/2), 0) != nil {
		return ""
	}
	return text(buf[:])
}

// Strings returns a property that is a text or a list of texts, nil if the device
// does not have it.
func (n Node) Strings(k Key) []string { return n.property(k).strings() }

// String returns the first of Strings, "" if there is none.
func (n Node) String(k Key) string {
	if s := n.Strings(k); len(s) > 0 {
		return s[0]
	}
	return ""
}

// Uint32 returns a property that is a number.
func (n Node) Uint32(k Key) (uint32, bool) { return n.property(k).uint32() }

// property reads a property; its lists have some hundred characters.
func (n Node) property(k Key) property {
	buf := make([]byte, 8<<10)
	p, size := property{}, uint32(len(buf))
	err := call(procProperty, uintptr(n), uintptr(unsafe.Pointer(&k)), uintptr(unsafe.Pointer(&p.typ)), uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
	if err != nil || int(size) > len(buf) {
		return property{}
	}
	p.data = buf[:size]
	return p
}
