package fileaudit

import (
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"sekisho/internal/event"
	"sekisho/internal/winpath"
)

const (
	// personFor is how long what is known of who sits at the PC is used again.
	personFor = 5 * time.Second
	// accountFor is the same for the names of accounts, which a domain controller
	// may have to be asked for.
	accountFor  = time.Hour
	maxAccounts = 256
)

// people knows who owns a file and who sits at the PC. Safe for concurrent use.
type people struct {
	mu       sync.Mutex // guards all below; nobody is asked under it
	accounts map[string]account
	atPC     *event.User
	asked    time.Time
}

type account struct {
	user event.User
	at   time.Time
}

// whose guesses who wrote a file: its owner, if that is a person and not a group, as
// on FAT or for administrators; else who is logged on.
func (p *people) whose(path string) (g guess) {
	sd, err := windows.GetNamedSecurityInfo(winpath.Verbatim(path), windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err == nil {
		if sid, _, err := sd.Owner(); err == nil && sid != nil && sid.IsValid() {
			u := p.account(sid)
			g.owner = u.Name
			if isPerson(u.ID) {
				u.Confidence = medium.String()
				g.person = &u
				return g
			}
		}
	}
	g.person = p.sitting()
	return g
}

// sitting is who is logged on; nil if nobody is, or several are.
func (p *people) sitting() *event.User {
	now := time.Now()
	p.mu.Lock()
	who, asked := p.atPC, p.asked
	p.mu.Unlock()
	if asked.IsZero() || now.Sub(asked) > personFor {
		who = nil
		if sid, err := loggedOn(); err == nil {
			u := p.account(sid)
			u.Confidence = low.String()
			who = &u
		}
		p.mu.Lock()
		p.asked, p.atPC = now, who
		p.mu.Unlock()
	}
	if who == nil {
		return nil
	}
	u := *who
	return &u
}

// account is the account of a SID; its name where that can be had.
func (p *people) account(sid *windows.SID) event.User {
	id, now := sid.String(), time.Now()
	p.mu.Lock()
	x, ok := p.accounts[id]
	p.mu.Unlock()
	if ok && now.Sub(x.at) < accountFor {
		return x.user
	}
	u := event.User{ID: id}
	if name, domain, _, err := sid.LookupAccount(""); err == nil {
		u.Name, u.Domain = name, domain
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.accounts == nil || len(p.accounts) >= maxAccounts {
		p.accounts = map[string]account{}
	}
	p.accounts[id] = account{u, now}
	return u
}

// isPerson reports whether a SID is of an account of the PC, of a domain or of
// Microsoft Entra ID ([MS-DTYP] 2.4.2.4), not of the system or a group that all
// systems have.
func isPerson(sid string) bool {
	return strings.HasPrefix(sid, "S-1-5-21-") || strings.HasPrefix(sid, "S-1-12-1-")
}

// loggedOn is who sits at the screen, or the only one who is connected to the PC
// from elsewhere. Only the system's account may ask.
func loggedOn() (*windows.SID, error) {
	sid, err := userOf(windows.WTSGetActiveConsoleSessionId())
	if err == nil {
		return sid, nil
	}
	var first *windows.WTS_SESSION_INFO
	var n uint32
	if e := windows.WTSEnumerateSessions(0, 0, 1, &first, &n); e != nil || first == nil {
		return nil, err
	}
	defer windows.WTSFreeMemory(uintptr(unsafe.Pointer(first)))
	active := 0
	for _, s := range unsafe.Slice(first, min(n, 1024)) {
		if s.State != windows.WTSActive {
			continue
		}
		if active++; active > 1 {
			return nil, windows.ERROR_NOT_FOUND
		}
		sid, err = userOf(s.SessionID)
	}
	return sid, err
}

// userOf is whose session it is.
func userOf(session uint32) (*windows.SID, error) {
	var token windows.Token
	if err := windows.WTSQueryUserToken(session, &token); err != nil {
		return nil, err
	}
	defer token.Close()
	u, err := token.GetTokenUser()
	if err != nil {
		return nil, err
	}
	return u.User.Sid.Copy()
}
