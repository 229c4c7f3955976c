package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"sekisho/internal/account"
	"sekisho/internal/peer"
)

// The cookies. A __Host- cookie can be set only over TLS, by this very host,
// for all of its paths.
const (
	sessionCookie       = "sekisho"
	secureSessionCookie = "__Host-sekisho"
	langCookie          = "sekisho_lang"
	themeCookie         = "sekisho_theme"
)

// touchEvery is how often the use of a session is written down: a write per
// click would be one per request for nothing.
const touchEvery = time.Minute

// waiting is how many password checks may be under way or in the queue: at 0.1 s
// and two at once the last one waits under a second.
const waiting = 16

// secure reports whether the browser reached us over TLS.
func (s *Server) secure(r *http.Request) bool { return r.TLS != nil || s.o.SecureCookies }

func (s *Server) cookieName(r *http.Request) string {
	if s.secure(r) {
		return secureSessionCookie
	}
	return sessionCookie
}

// recognize fills in the visitor's session and user. A missing, unknown or
// ended session is no error, the visitor is just not signed in.
func (s *Server) recognize(r *http.Request, v *visit) error {
	c, err := r.Cookie(s.cookieName(r))
	if err != nil {
		return nil
	}
	key, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil || len(key) != 32 {
		return nil
	}
	session, user, err := s.session(r.Context(), sha256.Sum256(key), time.Now())
	if err != nil || session == nil {
		return err
	}
	v.session, v.user = session, user
	// What a page fetches by itself is no sign of a person.
	if r.Header.Get("Sekisho-Live") == "" && r.URL.Path != "/live" && time.Since(session.Seen) > touchEvery {
		if err := s.o.Store.TouchSession(r.Context(), session.Hash, time.Now().UTC()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("touch session: %w", err)
		}
	}
	return nil
}

// session answers the session and its user if both are good at the time now;
// nil if not. An ended session is deleted.
func (s *Server) session(ctx context.Context, hash [32]byte, now time.Time) (*account.Session, *account.User, error) {
	session, err := s.o.Store.Session(ctx, hash)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read session: %w", err)
	}
	user, err := s.o.Store.UserByID(ctx, session.UserID)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("read user of session: %w", err)
	}
	ended := now.Sub(session.Created) > s.o.SessionMax || now.Sub(session.Seen) > s.o.SessionIdle
	if err != nil || user.Disabled || ended {
		if err := s.o.Store.DeleteSession(ctx, hash); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("delete session: %w", err)
		}
		return nil, nil, nil
	}
	return session, user, nil
}

// open starts a session with a value nobody has known before, whatever cookie
// the browser came with, and ends the one it had.
func (s *Server) open(w http.ResponseWriter, r *http.Request, user *account.User) error {
	if old := visitOf(r).session; old != nil {
		if err := s.o.Store.DeleteSession(r.Context(), old.Hash); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete session: %w", err)
		}
	}
	key := make([]byte, 32)
	rand.Read(key)
	now := time.Now().UTC()
	session := account.Session{Hash: sha256.Sum256(key), UserID: user.ID, Created: now, Seen: now,
		Remote: visitOf(r).remote, UserAgent: cutBytes(r.UserAgent(), 200)}
	if err := s.o.Store.AddSession(r.Context(), session); err != nil {
		return fmt.Errorf("add session: %w", err)
	}
	http.SetCookie(w, &http.Cookie{Name: s.cookieName(r), Value: base64.RawURLEncoding.EncodeToString(key), Path: "/",
		MaxAge: int(s.o.SessionMax / time.Second), HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: s.secure(r)})
	return nil
}

type loginPage struct {
	frame
	Name, Next, Problem string
}

func (s *Server) showLogin(w http.ResponseWriter, r *http.Request) error {
	v := visitOf(r)
	next := r.URL.Query().Get("next")
	if !localPath(next) {
		next = "/"
	}
	if v.user != nil {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return nil
	}
	return s.render(w, r, http.StatusOK, "login", loginPage{frame: s.frame(r, v.p.t("login.title"), ""), Next: next})
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) error {
	v := visitOf(r)
	if err := r.ParseForm(); err != nil {
		return badForm(err)
	}
	name := strings.ToLower(strings.TrimSpace(r.PostForm.Get("user")))
	password := r.PostForm.Get("password")
	refuse := func(status int, key string) error {
		page := loginPage{frame: s.frame(r, v.p.t("login.title"), ""), Name: name, Next: back(r, "/"), Problem: v.p.t(key)}
		return s.render(w, r, status, "login", page)
	}
	now := time.Now()
	if !s.byIP.allow(peer.Network(v.remote), now) || !s.byName.allow(cut(name, 100), now) {
		// Nothing is ever deleted from the audit log: a minute of guessing is one entry.
		if s.told.allow(peer.Network(v.remote), now) {
			if err := s.note(r, "", "login-limited", name, ""); err != nil {
				return err
			}
		}
		w.Header().Set("Retry-After", "30")
		return refuse(http.StatusTooManyRequests, "login.limited")
	}
	user, err := s.o.Store.UserByName(r.Context(), name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("find user: %w", err)
	}
	good, old, err := s.checkPassword(user, password)
	if err != nil {
		return err
	}
	if !good || user.Disabled {
		if err := s.note(r, "", "login-failed", name, ""); err != nil {
			return err
		}
		return refuse(http.StatusUnprocessableEntity, "login.wrong")
	}
	s.byName.forgive(name)
	checked, fresh := user.PasswordHash, ""
	if old {
		if fresh, err = account.HashPassword(password); err != nil {
			return fmt.Errorf("hash password anew: %w", err)
		}
	}
	if err := s.o.Store.SignedIn(r.Context(), user.ID, checked, orDefault(fresh, checked), now.UTC()); err != nil {
		return changedMeanwhile(err)
	}
	if err := s.note(r, user.Name, "login", user.Name, ""); err != nil {
		return err
	}
	if err := s.open(w, r, user); err != nil {
		return err
	}
	http.Redirect(w, r, back(r, "/"), http.StatusSeeOther)
	return nil
}

// checkPassword checks a password; user may be nil, which takes as long. Package
// account lets two run at once; beyond a short queue the answer is errTooMany.
func (s *Server) checkPassword(user *account.User, password string) (ok, old bool, err error) {
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	default:
		return false, false, fmt.Errorf("%w: %d passwords are being checked", errTooMany, cap(s.hashing))
	}
	hash := ""
	if user != nil {
		hash = user.PasswordHash
	}
	ok, old = account.CheckPassword(hash, password)
	return ok, old, nil
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request) error {
	v := visitOf(r)
	if err := s.o.Store.DeleteSession(r.Context(), v.session.Hash); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete session: %w", err)
	}
	if err := s.note(r, v.user.Name, "logout", v.user.Name, ""); err != nil {
		return err
	}
	http.SetCookie(w, &http.Cookie{Name: s.cookieName(r), Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: s.secure(r)})
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}

type accountPage struct {
	frame
	Session *account.Session
	Problem string
	Done    bool // the password was just changed
	Force   bool
	Min     int
	End     time.Time // of the session at the latest
}

func (s *Server) accountPage(r *http.Request) accountPage {
	v := visitOf(r)
	return accountPage{frame: s.frame(r, v.p.t("nav.account"), "account"), Session: v.session, Force: v.user.MustChange,
		Min: account.MinPasswordLen, End: v.session.Created.Add(s.o.SessionMax)}
}

func (s *Server) showAccount(w http.ResponseWriter, r *http.Request) error {
	page := s.accountPage(r)
	page.Done = r.URL.Query().Get("done") == "1"
	return s.render(w, r, http.StatusOK, "account", page)
}

func (s *Server) changePassword(w http.ResponseWriter, r *http.Request) error {
	v := visitOf(r)
	if err := r.ParseForm(); err != nil {
		return badForm(err)
	}
	old, fresh := r.PostForm.Get("old"), r.PostForm.Get("new")
	refuse := func(key string) error {
		page := s.accountPage(r)
		page.Problem = v.p.t(key)
		return s.render(w, r, http.StatusUnprocessableEntity, "account", page)
	}
	switch {
	case utf8.RuneCountInString(fresh) < account.MinPasswordLen:
		return refuse("password.short")
	case utf8.RuneCountInString(fresh) > account.MaxPasswordLen:
		return refuse("password.long")
	case fresh == old:
		return refuse("password.same")
	case strings.Contains(strings.ToLower(fresh), v.user.Name) && len(fresh) < len(v.user.Name)+account.MinPasswordLen/2:
		return refuse("password.name")
	case fresh != r.PostForm.Get("again"):
		return refuse("password.differ")
	case !s.byName.allow(v.user.Name, time.Now()):
		return errTooMany
	}
	good, _, err := s.checkPassword(v.user, old)
	if err != nil {
		return err
	}
	if !good {
		if err := s.note(r, v.user.Name, "password-failed", v.user.Name, ""); err != nil {
			return err
		}
		return refuse("password.wrong")
	}
	s.byName.forgive(v.user.Name)
	u, first := v.user, v.user.MustChange
	hash, err := account.HashPassword(fresh)
	if err != nil {
		return fmt.Errorf("hash password: %w", err)
	}
	if err := s.note(r, u.Name, "password-change", u.Name, ""); err != nil {
		return err
	}
	// Whoever knew the old password is out, everywhere.
	if err := s.o.Store.ChangePassword(r.Context(), u.ID, u.PasswordHash, hash); err != nil {
		return changedMeanwhile(err)
	}
	v.session = nil
	if err := s.open(w, r, u); err != nil {
		return err
	}
	to := "/account?done=1"
	if first {
		to = "/"
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

// changedMeanwhile is the store's error for a user whose password was checked: if
// it is not there any more, somebody else has reset or disabled it since.
func changedMeanwhile(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the password was changed meanwhile", errSignIn)
	}
	return fmt.Errorf("update user: %w", err)
}

// choiceAge is how long a browser remembers its language and colours.
const choiceAge = 365 * 24 * 60 * 60

func (s *Server) setLang(w http.ResponseWriter, r *http.Request) error {
	v := visitOf(r)
	lang := r.PostFormValue("lang")
	if s.printers[lang] == nil {
		return fmt.Errorf("%w: language %q", errBadRequest, cut(lang, 20))
	}
	if v.user != nil && v.user.Lang != lang {
		if err := s.o.Store.SetUserLang(r.Context(), v.user.ID, lang); err != nil {
			return fmt.Errorf("set language: %w", err)
		}
	}
	s.choose(w, r, langCookie, lang)
	return nil
}

func (s *Server) setTheme(w http.ResponseWriter, r *http.Request) error {
	theme := r.PostFormValue("theme")
	if !isTheme(theme) {
		return fmt.Errorf("%w: theme %q", errBadRequest, cut(theme, 20))
	}
	s.choose(w, r, themeCookie, theme)
	return nil
}

func (s *Server) choose(w http.ResponseWriter, r *http.Request, name, value string) {
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: choiceAge, HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: s.secure(r)})
	http.Redirect(w, r, back(r, "/"), http.StatusSeeOther)
}

func isTheme(t string) bool { return t == "light" || t == "dark" || t == "auto" }

func themeOf(r *http.Request) string {
	if c, err := r.Cookie(themeCookie); err == nil && isTheme(c.Value) {
		return c.Value
	}
	return "auto"
}

// langOf is the language to answer in: the person's, the browser's choice, what
// the browser asks for, Japanese.
func langOf(r *http.Request, u *account.User) string {
	if u != nil && known(u.Lang) {
		return u.Lang
	}
	if c, err := r.Cookie(langCookie); err == nil && known(c.Value) {
		return c.Value
	}
	// Browsers list languages best first; weights that say otherwise are not seen in practice.
	for i, part := range strings.SplitN(r.Header.Get("Accept-Language"), ",", 20) {
		tag, _, _ := strings.Cut(strings.TrimSpace(part), ";")
		base, _, _ := strings.Cut(strings.ToLower(tag), "-")
		if i < 20 && known(base) {
			return base
		}
	}
	return languages[0]
}

func known(lang string) bool {
	for _, l := range languages {
		if l == lang {
			return true
		}
	}
	return false
}

func badForm(err error) error { return fmt.Errorf("%w: read form: %w", errBadRequest, err) }

// limiter bounds how often each key may do something: burst at once, then one
// per period. Memory is bounded: when it is full, keys that have their whole
// burst left are forgotten, and if there are none, new keys are refused.
type limiter struct {
	period time.Duration
	burst  int

	mu   sync.Mutex // guards keys
	keys map[string]*rate.Limiter
}

// maxKeys is a limiter's size: about 2 MB.
const maxKeys = 10_000

func newLimiter(period time.Duration, burst int) *limiter {
	return &limiter{period: period, burst: burst, keys: map[string]*rate.Limiter{}}
}

func (l *limiter) allow(key string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.keys[key]
	if k == nil {
		if len(l.keys) >= maxKeys {
			for name, old := range l.keys {
				if old.TokensAt(now) >= float64(l.burst) {
					delete(l.keys, name)
				}
			}
			if len(l.keys) >= maxKeys {
				return false
			}
		}
		k = rate.NewLimiter(rate.Every(l.period), l.burst)
		l.keys[key] = k
	}
	return k.AllowN(now, 1)
}

// forgive forgets what a key did: it proved to be in good faith.
func (l *limiter) forgive(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.keys, key)
}
