// Command gallery serves the console's pages with made-up content for looking at
// them: go run ./internal/console/gallery, then open the address it prints.
// Everybody is signed in. POST /new lets an alert arrive, POST /new?test=1 a test.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"sekisho/internal/account"
	"sekisho/internal/console"
	"sekisho/internal/console/canned"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8089", "`address` to listen on")
	flag.Parse()
	if err := serve(*addr); err != nil {
		fmt.Fprintln(os.Stderr, "gallery:", err)
		os.Exit(1)
	}
}

func serve(addr string) error {
	now := time.Now().UTC()
	store := canned.Full(now, "suzuki")
	store.AddAlert(canned.Hostile(now.Add(-90*time.Minute), "\u202etxt.exe\x07<img src=x onerror=alert(1)>\u2066"+strings.Repeat("長", 1<<12)), "0192f0aa-0000-7000-8000-000000000001", now)
	for _, role := range account.Roles {
		if err := store.Audit(context.Background(), account.AuditEntry{Time: now, Who: string(role), Action: "login", Object: string(role), Remote: "192.0.2.7"}); err != nil {
			return err
		}
	}
	empty := canned.NewStore()
	sites := map[string]*site{"full": newSite(store, "suzuki", account.Admin, false), "empty": newSite(empty, "suzuki", account.Analyst, false), "first": newSite(empty, "newcomer", account.Viewer, true)}
	fmt.Printf("http://%s/alerts   ?site=empty, ?site=first and ?site=nobody for other states, ?site=full to come back\n", addr)
	arrived := 0
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/new" {
			arrived++
			a := canned.Alert(arrived, time.Now().UTC())
			if r.URL.Query().Get("test") != "" {
				a = canned.TestAlert(time.Now().UTC())
			}
			store.AddAlert(a, "0192f0aa-0000-7000-8000-000000000001", time.Now().UTC())
			return
		}
		s := sites["full"]
		which := r.URL.Query().Get("site")
		if c, err := r.Cookie("gallery_site"); err == nil && which == "" {
			which = c.Value
		} else if which != "" {
			http.SetCookie(w, &http.Cookie{Name: "gallery_site", Value: which, Path: "/"})
		}
		if x := sites[which]; x != nil {
			s = x
		}
		if which != "nobody" {
			r.AddCookie(&http.Cookie{Name: "sekisho", Value: s.cookie})
		}
		s.console.ServeHTTP(w, r)
	}))
}

type site struct {
	console *console.Server
	cookie  string
}

func newSite(store *canned.Store, user string, role account.Role, first bool) *site {
	u := store.AddUser(account.User{Name: user, Role: role, MustChange: first})
	key := make([]byte, 32)
	rand.Read(key)
	now := time.Now().UTC()
	session := account.Session{Hash: sha256.Sum256(key), UserID: u.ID, Created: now, Seen: now, Remote: "192.0.2.7"}
	if err := store.AddSession(context.Background(), session); err != nil {
		panic(err) // a map does not fail
	}
	return &site{console.NewServer(console.Options{Store: store, Version: "0.1.0", Logger: zap.Must(zap.NewDevelopment())}), base64.RawURLEncoding.EncodeToString(key)}
}
