package winacl

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
)

const (
	users = "S-1-5-32-545"
	owner = "S-1-5-21-1-2-3-1001" // some person
)

// ace is one entry of a fixture.
type ace struct {
	kind byte
	mask uint32
	sid  []byte
	more []byte // between mask and SID
}

// sid writes the bytes of S-1-AUTHORITY-parts.
func sid(authority byte, parts ...uint32) []byte {
	b := []byte{1, byte(len(parts)), 0, 0, 0, 0, 0, authority}
	for _, p := range parts {
		b = binary.LittleEndian.AppendUint32(b, p)
	}
	return b
}

// descriptor writes a self-relative security descriptor by [MS-DTYP] 2.4.6.
func descriptor(owner []byte, aces ...ace) []byte {
	b := make([]byte, descriptorSize)
	b[0] = 1
	binary.LittleEndian.PutUint16(b[2:], 0x8004) // self-relative, list present
	if owner != nil {
		binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
		b = append(b, owner...)
	}
	binary.LittleEndian.PutUint32(b[16:], uint32(len(b)))
	acl := []byte{2, 0, 0, 0, byte(len(aces)), 0, 0, 0}
	for _, a := range aces {
		e := []byte{a.kind, 3, 0, 0}
		e = binary.LittleEndian.AppendUint32(e, a.mask)
		e = append(append(e, a.more...), a.sid...)
		binary.LittleEndian.PutUint16(e[2:], uint16(len(e)))
		acl = append(acl, e...)
	}
	binary.LittleEndian.PutUint16(acl[2:], uint16(len(acl)))
	return append(b, acl...)
}

var (
	systemSID = sid(5, 18)
	adminsSID = sid(5, 32, 544)
	usersSID  = sid(5, 32, 545)
)

func TestADescriptorIsRead(t *testing.T) {
	guids := append([]byte{3, 0, 0, 0}, make([]byte, 32)...)
	got, err := Decode(descriptor(adminsSID,
		ace{kind: allowed, mask: 0x1f01ff, sid: systemSID},
		ace{kind: 1, mask: 2, sid: usersSID}, // a refusal
		ace{kind: allowedObject, mask: 0x20, sid: usersSID, more: guids},
		ace{kind: allowedCallback, mask: 0x1200a9, sid: sid(15, 2, 1)}))
	want := List{Owner: Administrators, Entries: []Entry{{System, 0x1f01ff}, {users, 0x20}, {"S-1-15-2-1", 0x1200a9}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	none := descriptor(adminsSID)
	none[2] &^= controlDACL
	if got, err := Decode(none); err != nil || !got.Open {
		t.Errorf("without a list: %+v, %v", got, err)
	}
}

func TestATornDescriptorIsAnError(t *testing.T) {
	whole := descriptor(adminsSID, ace{mask: 1, sid: systemSID}, ace{mask: 2, sid: usersSID})
	for n := range len(whole) {
		if l, err := Decode(whole[:n]); err == nil {
			t.Fatalf("%d of %d bytes: %+v", n, len(whole), l)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(descriptor(adminsSID, ace{mask: 0x1f01ff, sid: systemSID}, ace{kind: allowedObject, mask: 2, sid: usersSID, more: []byte{0, 0, 0, 0}}))
	f.Add(descriptor(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Decode(b)
		if err != nil {
			return
		}
		for _, e := range l.Entries {
			if !strings.HasPrefix(e.SID, "S-1-") {
				t.Errorf("SID %q", e.SID)
			}
		}
		JudgeFile("x", l, "", nil)
		JudgeService(l)
	})
}

func TestWhatUsersOwnOrMayChangeIsNotReliedOn(t *testing.T) {
	const full, read, addFiles = 0x1f01ff, 0x1200a9, 0x100116
	closed := []Entry{{System, full}, {Administrators, full}}
	for _, c := range []struct {
		name string
		list List
		want Kind
		who  string
	}{
		{"the closed folder", List{Owner: Administrators, Entries: closed}, 0, ""},
		{"made by the installer", List{Owner: System, Entries: closed}, 0, ""},
		{"users may read", List{Owner: System, Entries: append(closed, Entry{users, read})}, 0, ""},
		{"the domain's administrators", List{Owner: "S-1-5-21-7-8-9-512", Entries: append(closed, Entry{"S-1-5-21-7-8-9-519", full})}, 0, ""},
		{"who makes something owns it", List{Owner: System, Entries: append(closed, Entry{creatorOwner, 0x10000000}, Entry{ownerRights, full})}, 0, ""},
		{"below ProgramData as Windows makes it", List{Owner: Administrators, Entries: append(closed, Entry{users, read}, Entry{users, addFiles})}, Writable, users},
		{"users may make it a junction", List{Owner: System, Entries: append(closed, Entry{users, 0x100})}, Writable, users},
		{"users may let themselves in", List{Owner: System, Entries: append(closed, Entry{users, 0x40000})}, Writable, users},
		{"everybody may everything", List{Owner: System, Entries: []Entry{{everyone, 0x10000000}}}, Writable, everyone},
		{"no list", List{Owner: System, Open: true}, Writable, everyone},
		{"made by a user before", List{Owner: owner, Entries: closed}, Owned, owner},
		{"nobody is said to own it", List{Entries: closed}, Owned, ""},
		{"a name that only looks like an administrator", List{Owner: "S-1-5-80-7-512", Entries: closed}, Owned, "S-1-5-80-7-512"},
		{"a junction of administrators", List{Link: true, Owner: Administrators, Entries: closed}, Linked, ""},
		{"a junction of a user", List{Link: true, Owner: owner}, Linked, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := JudgeFile(`C:\x`, c.list, System, nil)
			if (got == nil) != (c.want == 0) || got != nil && (got.Kind != c.want || got.Who != c.who) {
				t.Errorf("got %+v, want %v %s", got, c.want, c.who)
			}
		})
	}
	if got := JudgeFile(`C:\x`, List{Owner: owner, Entries: []Entry{{owner, full}}}, owner, nil); got != nil {
		t.Errorf("one's own: %v", got)
	}
}

func TestTroubleSaysWhatToDo(t *testing.T) {
	for kind, want := range map[Kind][]string{Linked: {"リンク", "link"}, Owned: {"所有者", "belongs to"}, Writable: {"変えられます", "can be changed by"}} {
		x := &Trouble{Path: `C:\ProgramData\Sekisho`, Folder: true, Kind: kind, Who: `PC1\tanaka`}
		for i, text := range []string{x.Text("ja"), x.Error()} {
			if !strings.Contains(text, x.Path) || !strings.Contains(text, want[i]) || kind != Linked && (!strings.Contains(text, x.Who) || !strings.Contains(text, `takeown /F "C:\ProgramData\Sekisho" /A /R && icacls "C:\ProgramData\Sekisho" /reset /T && icacls `)) {
				t.Errorf("%d: %s", kind, text)
			}
		}
	}
}

func TestUsersMayLookAtTheServiceOnly(t *testing.T) {
	const interactive = "S-1-5-4"
	for _, c := range []struct {
		mask uint32
		want string
	}{
		{0x2008d, ""},             // CCLCSWLORC
		{0x1, ""},                 // query
		{0x10, ""},                // start
		{0x20, interactive},       // stop
		{0x40, interactive},       // pause
		{0x2, interactive},        // change
		{0x100, interactive},      // controls of one's own
		{0x40000, interactive},    // the list
		{0x20000000, interactive}, // by generic rights
	} {
		if got := JudgeService(List{Entries: []Entry{{System, 0xf01ff}, {Administrators, 0xf01ff}, {interactive, c.mask}}}); got != c.want {
			t.Errorf("%#x: got %q, want %q", c.mask, got, c.want)
		}
	}
	if JudgeService(List{Open: true}) != everyone {
		t.Error("a service without a list is safe")
	}
}
