package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"sekisho/internal/alert"
	"sekisho/internal/enroll"
)

// identity leaves the identity of a PC, whose certificate ends at a time.
func identity(t *testing.T, dir string, ends time.Time) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("its key would have to be sealed")
	}
	ca, err := enroll.OpenCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.IssueClient(&key.PublicKey, "agent-1", enroll.NewSerial(), ends)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{"agent_id": "agent-1", "consoles": []string{"https://127.0.0.1:1"}, "ca": ca.RootPEM(), "certificate": cert, "key": raw})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(identityDir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(identityDir(dir), "identity.json"), string(text))
}

// authority is an authority's certificate in PEM.
func authority(t *testing.T, ends time.Time) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Town hall root"}, NotBefore: ends.AddDate(-1, 0, 0), NotAfter: ends, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// A certificate that ends in 13 days, and one that should have been renewed by
// itself, are an alert each, once, however often the agent starts.
func TestCertificatesThatEndSoonAreTold(t *testing.T) {
	dir := shortDir(t)
	now := time.Now()
	identity(t, filepath.Join(dir, "state"), now.Add(6*24*time.Hour+time.Hour))
	ca := filepath.Join(dir, "ca.pem")
	write(t, ca, authority(t, now.Add(13*24*time.Hour)))
	settings := "console: {ca: " + ca + "}\nwork_hours: {timezone: UTC}\n"
	for range 2 {
		r := start(t, dir, settings, newScripted())
		r.until("both are told", func() bool {
			return r.saw(`"expiry-near"`, `"of":"certificate"`, `"name":"agent-1"`, `"within":7`) &&
				r.saw(`"expiry-near"`, `"of":"authority"`, `"name":"Town hall root"`, `"days":13`, `"within":14`)
		})
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	seen := map[string]bool{}
	for _, rec := range spooled(t, filepath.Join(dir, "state"), "alerts") {
		a, err := alert.Decode(rec)
		if err != nil {
			t.Fatal(err)
		}
		if !seen[a.ID] {
			got = append(got, a.Rule.Table+" "+a.Level.String()+" "+a.Event.Context.ExpiryOf)
		}
		seen[a.ID] = true
	}
	slices.Sort(got)
	if want := []string{"HLT-2 medium authority", "HLT-2 medium certificate"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What renews itself in time is no alert, nor is an authority that is replaced.
func TestCertificatesThatHaveTimeAreNotTold(t *testing.T) {
	dir := shortDir(t)
	now := time.Now()
	state := filepath.Join(dir, "state")
	identity(t, state, now.Add(9*24*time.Hour))
	ca := filepath.Join(dir, "ca.pem")
	write(t, ca, authority(t, now.Add(5*24*time.Hour))+authority(t, now.AddDate(1, 0, 0)))
	file := filepath.Join(dir, "agent.yaml")
	write(t, file, "state_dir: "+state+"\nconsole: {ca: "+ca+"}\n")
	a, err := New(Options{ConfigFile: file, Sources: []Source{newScripted()}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.judge.Close()
	defer a.out.close()
	for _, tt := range []struct {
		days int
		want int
	}{{0, 0}, {1, 0}, {3, 1}, {300, 1}, {340, 2}} {
		if got := a.endings(now.AddDate(0, 0, tt.days)); len(got) != tt.want {
			t.Errorf("in %d days: %d of %d", tt.days, len(got), tt.want)
		}
	}
}
