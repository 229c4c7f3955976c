package agent

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Names and secrets that a support bundle could give away.
func TestASupportBundleHoldsNoSecretAndNoKnownName(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	logs := filepath.Join(dir, "logs")
	r := start(t, dir, "log: {dir: "+logs+"}\npeople: [{id: p-yamada, accounts: ['CITY\\yamada.t', hanako]}]\n", newScripted())
	if err := os.MkdirAll(filepath.Join(r.stateDir, "identity"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(logs, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		filepath.Join(r.stateDir, "identity", "identity.json"):  `{"key":"U0VDUkVULWtleQ==SECRET"}`,
		filepath.Join(dir, "enroll.token"):                      "SECRET-token",
		filepath.Join(logs, "agent.log"):                        `{"msg":"read /home/Yamada.T/x on ` + strings.ToUpper(host) + `\nhanako"}` + "\n",
		filepath.Join(logs, "agent-2026.log"):                   strings.Repeat("old line of hanako\n", 300_000),
		filepath.Join(r.stateDir, "crash-20260101T000000Z.txt"): "panic: boom of p-yamada\n",
	} {
		write(t, path, text)
	}
	files, err := Bundle(t.Context(), r.o.ConfigFile, map[string]string{"version": "test"}, false)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	pseudonyms := map[string]bool{}
	for _, f := range files {
		names[f.Name] = true
		low := strings.ToLower(string(f.Data))
		for _, secret := range []string{"secret", "yamada", "hanako", strings.ToLower(host)} {
			if strings.Contains(low, secret) {
				t.Errorf("%s holds %q", f.Name, secret)
			}
		}
		if strings.HasSuffix(f.Name, ".json") && !json.Valid(f.Data) {
			t.Errorf("%s is no JSON any more:\n%s", f.Name, f.Data)
		}
		if len(f.Data) > 2*maxBundleFile {
			t.Errorf("%s has %d bytes", f.Name, len(f.Data))
		}
		for _, w := range strings.FieldsFunc(string(f.Data), func(r rune) bool { return strings.ContainsRune(" \n\"',:[]\\/", r) }) {
			if strings.HasPrefix(w, "user-") {
				pseudonyms[w] = true
			}
		}
	}
	for _, want := range []string{"version.json", "doctor.json", "settings.txt", "status.json", "logs/agent.log", "logs/agent-2026.log", "logs/crash-20260101T000000Z.txt"} {
		if !names[want] {
			t.Errorf("%s is missing", want)
		}
	}
	if len(pseudonyms) == 0 {
		t.Error("no account has a pseudonym")
	}

	again, err := Bundle(t.Context(), r.o.ConfigFile, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range again {
		for p := range pseudonyms {
			if bytes.Contains(f.Data, []byte(p)) {
				t.Fatalf("pseudonym %s is the same in two bundles: they could be joined", p)
			}
		}
	}

	open, err := Bundle(t.Context(), r.o.ConfigFile, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, f := range open {
		all = append(all, f.Data...)
	}
	for _, want := range []string{"p-yamada", `CITY\\yamada.t`, "hanako", host} {
		if !bytes.Contains(all, []byte(want)) {
			t.Errorf("with names, %q is missing", want)
		}
	}
	if bytes.Contains(all, []byte("SECRET")) {
		t.Error("a secret is in the bundle with names")
	}
}

func TestABundleIsMadeOfAPCWhoseSettingsAreBroken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	write(t, file, "hots: 1\n")
	files, err := Bundle(t.Context(), file, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := WriteBundle(&b, files); err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		if f.Name == "settings-problems.txt" {
			rc, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer rc.Close()
			if text, _ := io.ReadAll(rc); !strings.Contains(string(text), `unknown key "hots"`) {
				t.Errorf("problems told: %s", text)
			}
			return
		}
	}
	t.Error("the problems are missing")
}
