// Package winacl says who may do what to the agent's files and to its service on
// Windows, and whether that is right.
//
// Reading and setting access lists is Windows' business (winacl_windows.go: no
// privilege needed to read, administrator's rights to set). What a list means is
// decided here, by pure functions that every system tests.
//
// Refusals in a list (deny entries) count for nothing: an entry that lets users
// write is trouble even where another one takes that back.
package winacl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Folder is who may do what in the agent's data folder, in SDDL: the system (SY)
// and administrators (BA) everything (FA), inherited by what is made in it (OI,
// CI); nothing comes from above (P), where every user may make files.
const Folder = "D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"

// OwnFolder is Folder with its owner (OW) let in as well, for an agent that
// somebody without administrator's rights tries out.
const OwnFolder = Folder + "(A;OICI;FA;;;OW)"

// Service is who may do what to the service, in SDDL. Letters are rights of
// services: CC query the configuration, DC change it, LC query the state, SW list
// dependents, RP start, WP stop, DT pause, LO ask for its state, CR send controls
// of one's own, SD delete, RC read this list, WD change it, WO change the owner.
// The system (SY) and administrators (BA) may everything. People at the PC (IU) and
// services (SU) may look, no more: whoever is watched must not end the watching.
// Windows' own default differs by CR, and by what others have added to it.
const Service = "D:(A;;CCDCLCSWRPWPDTLOCRSDRCWDWO;;;SY)(A;;CCDCLCSWRPWPDTLOCRSDRCWDWO;;;BA)(A;;CCLCSWLORC;;;IU)(A;;CCLCSWLORC;;;SU)"

// Entry lets somebody do something.
type Entry struct {
	SID  string // "S-1-5-32-545"
	Mask uint32 // rights, as in ACCESS_MASK
}

// List is who owns something and who may do what to it.
type List struct {
	Link    bool // a link or junction
	Folder  bool
	Owner   string // SID; "" if not told
	Open    bool   // there is no list: everybody may do everything
	Entries []Entry
}

// The parts of [MS-DTYP] 2.4: SECURITY_DESCRIPTOR (self-relative), ACL, ACE, SID.
const (
	descriptorSize = 20
	controlDACL    = 0x0004 // SE_DACL_PRESENT
	listSize       = 8
	entryHeader    = 8 // type, flags, size, mask
	// What stands between mask and SID of entries that name an object: flags, and
	// the GUIDs that these say are there.
	objectFlags = 4
	guidSize    = 16
)

// The types of entries that allow something ([MS-DTYP] 2.4.4.1). A condition of a
// callback entry is not looked at: what may be allowed counts as allowed.
const (
	allowed               = 0x00
	allowedObject         = 0x05
	allowedCallback       = 0x09
	allowedCallbackObject = 0x0b
)

var errTorn = errors.New("security descriptor: torn")

// Decode reads a self-relative security descriptor.
func Decode(b []byte) (List, error) {
	var l List
	if len(b) < descriptorSize || b[0] != 1 {
		return l, errTorn
	}
	if at := binary.LittleEndian.Uint32(b[4:]); at != 0 {
		sid, err := sidAt(b, at)
		if err != nil {
			return l, err
		}
		l.Owner = sid
	}
	at := binary.LittleEndian.Uint32(b[16:])
	if binary.LittleEndian.Uint16(b[2:])&controlDACL == 0 || at == 0 {
		l.Open = true
		return l, nil
	}
	if uint64(at)+listSize > uint64(len(b)) {
		return l, errTorn
	}
	acl := b[at:]
	if size := int(binary.LittleEndian.Uint16(acl[2:])); size >= listSize && size <= len(acl) {
		acl = acl[:size]
	} else {
		return l, errTorn
	}
	n, rest := binary.LittleEndian.Uint16(acl[4:]), acl[listSize:]
	for range n {
		if len(rest) < entryHeader {
			return l, errTorn
		}
		size := int(binary.LittleEndian.Uint16(rest[2:]))
		if size < entryHeader || size > len(rest) {
			return l, errTorn
		}
		e := rest[:size]
		rest = rest[size:]
		from := entryHeader
		switch e[0] {
		case allowed, allowedCallback:
		case allowedObject, allowedCallbackObject:
			if len(e) < from+objectFlags {
				return l, errTorn
			}
			flags := binary.LittleEndian.Uint32(e[from:])
			from += objectFlags + int(flags&1)*guidSize + int(flags>>1&1)*guidSize
		default:
			continue
		}
		sid, err := sidAt(e, uint32(from))
		if err != nil {
			return l, err
		}
		l.Entries = append(l.Entries, Entry{SID: sid, Mask: binary.LittleEndian.Uint32(e[4:])})
	}
	return l, nil
}

// sidAt reads the SID at an offset: revision, count of parts, six bytes of
// authority (big-endian), the parts.
func sidAt(b []byte, at uint32) (string, error) {
	if uint64(at)+8 > uint64(len(b)) {
		return "", errTorn
	}
	b = b[at:]
	n := int(b[1])
	if b[0] != 1 || n > 15 || len(b) < 8+4*n {
		return "", errTorn
	}
	authority := uint64(binary.BigEndian.Uint16(b[2:]))<<32 | uint64(binary.BigEndian.Uint32(b[4:]))
	s := append([]byte("S-1-"), strconv.FormatUint(authority, 10)...)
	for i := range n {
		s = append(s, '-')
		s = strconv.AppendUint(s, uint64(binary.LittleEndian.Uint32(b[8+4*i:])), 10)
	}
	return string(s), nil
}

// The well-known SIDs ([MS-DTYP] 2.4.2.4) of those who may do everything to a PC
// anyway, and of stand-ins that are judged by whom they stand for.
const (
	System           = "S-1-5-18"
	Administrators   = "S-1-5-32-544"
	trustedInstaller = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464" // Windows' own updates
	creatorOwner     = "S-1-3-0"                                                        // who makes something in a folder: it is judged itself
	ownerRights      = "S-1-3-4"                                                        // the owner, who is judged by name
)

// trusted reports whether one who has these rights could take them anyway. self is
// the SID of who asks.
func trusted(sid, self string) bool {
	switch sid {
	case System, Administrators, trustedInstaller, self:
		return true
	}
	if strings.HasPrefix(sid, "S-1-5-21-") {
		for _, rid := range []string{"-500", "-512", "-519"} { // the built-in administrator, administrators of the domain and of the forest
			if strings.HasSuffix(sid, rid) {
				return true
			}
		}
	}
	return false
}

// Rights by which a file or folder can be changed or replaced (winnt.h).
const changesFile = 0x00000002 | // FILE_WRITE_DATA, FILE_ADD_FILE
	0x00000004 | // FILE_APPEND_DATA, FILE_ADD_SUBDIRECTORY
	0x00000010 | // FILE_WRITE_EA
	0x00000040 | // FILE_DELETE_CHILD
	0x00000100 | // FILE_WRITE_ATTRIBUTES: enough to make an empty folder a junction
	changesAny

// Rights by which a service can be ended or changed (winsvc.h).
const changesService = 0x0002 | // SERVICE_CHANGE_CONFIG
	0x0020 | // SERVICE_STOP
	0x0040 | // SERVICE_PAUSE_CONTINUE
	0x0100 | // SERVICE_USER_DEFINED_CONTROL
	0x20000000 | // GENERIC_EXECUTE: stop, pause
	changesAny

// Rights to anything by which its list, or itself, can be changed.
const changesAny = 0x00010000 | // DELETE
	0x00040000 | // WRITE_DAC
	0x00080000 | // WRITE_OWNER
	0x10000000 | // GENERIC_ALL
	0x40000000 // GENERIC_WRITE

// Trouble is why something is not safe from those who are watched.
type Trouble struct {
	Path   string
	Folder bool
	Kind   Kind
	Who    string // name or SID of who owns it or may change it
}

// Kind is what is wrong.
type Kind int

// The kinds of trouble.
const (
	Linked   Kind = iota + 1 // a link or junction: it stands for another place
	Owned                    // somebody without administrator's rights owns it and can open it to anybody
	Writable                 // somebody without administrator's rights may change it
)

// Error tells it in English; see Text.
func (t *Trouble) Error() string { return t.Text("en") }

// Text is what is wrong and what to do about it, in "ja" or "en".
func (t *Trouble) Text(language string) string {
	ja, en := "", ""
	switch t.Kind {
	case Linked:
		ja = fmt.Sprintf("%s はリンク（ジャンクション）です。指している先を誰でも変えられるかもしれないので使いません。リンクを消し、管理者として本物のフォルダーを作ってください", t.Path)
		en = fmt.Sprintf("%s is a link (junction): where it leads to may be anybody's choice, so it is not used. Delete it and make a real folder as an administrator", t.Path)
	case Owned:
		ja = fmt.Sprintf("%s の所有者は管理者ではなく %s です。見張られる人が中身を変えられるので使いません。中身を調べ、管理者のコマンドプロンプトで次を実行してください: %s", t.Path, t.Who, t.repair())
		en = fmt.Sprintf("%s belongs to %s, not to administrators: who is watched could change it, so it is not used. Look at what is in it, then run at an administrator's command prompt: %s", t.Path, t.Who, t.repair())
	default:
		ja = fmt.Sprintf("%s は %s が変えられます。見張られる人が中身を変えられるので使いません。中身を調べ、管理者のコマンドプロンプトで次を実行してください: %s", t.Path, t.Who, t.repair())
		en = fmt.Sprintf("%s can be changed by %s: who is watched could change it, so it is not used. Look at what is in it, then run at an administrator's command prompt: %s", t.Path, t.Who, t.repair())
	}
	if language == "ja" {
		return ja
	}
	return en
}

// repair is what an administrator types at the command prompt to give a file or
// folder, and what is in it, to administrators alone.
func (t *Trouble) repair() string {
	owned, below, inherited := "", "", ""
	if t.Folder {
		owned, below, inherited = " /R", " /T", "(OI)(CI)"
	}
	return fmt.Sprintf(`takeown /F "%[1]s" /A%[4]s && icacls "%[1]s" /reset%[5]s && icacls "%[1]s" /inheritance:r /grant:r *%[3]s:%[6]sF *%[2]s:%[6]sF`, t.Path, Administrators, System, owned, below, inherited)
}

// JudgeFile says why a file or folder with such a list cannot be relied on; nil: it
// can. self is the SID of the account that asks, which may do what it likes with
// its own. name may turn a SID into a name; nil: SIDs are told.
func JudgeFile(path string, l List, self string, name func(sid string) string) *Trouble {
	if name == nil {
		name = func(sid string) string { return sid }
	}
	t := &Trouble{Path: path, Folder: l.Folder}
	switch who, writable := l.changedBy(changesFile, self); {
	case l.Link:
		t.Kind = Linked
	case !trusted(l.Owner, self):
		t.Kind, t.Who = Owned, name(l.Owner)
	case writable:
		t.Kind, t.Who = Writable, name(who)
	default:
		return nil
	}
	return t
}

// JudgeService answers who but administrators may stop or change a service with
// such a list; "" for nobody.
func JudgeService(l List) (sid string) {
	sid, _ = l.changedBy(changesService, "")
	return sid
}

const everyone = "S-1-1-0"

// changedBy is the first one but those trusted who has one of these rights.
func (l List) changedBy(rights uint32, self string) (sid string, found bool) {
	if l.Open {
		return everyone, true
	}
	for _, e := range l.Entries {
		if e.Mask&rights != 0 && e.SID != creatorOwner && e.SID != ownerRights && !trusted(e.SID, self) {
			return e.SID, true
		}
	}
	return "", false
}
