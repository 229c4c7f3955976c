package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

//go:embed static
var staticFS embed.FS

const staticRoot = "/static/"

// staticFiles serves the embedded files below a folder named by the hash of all
// of them, so that browsers may keep them for ever and a new version is seen at
// once, also through the relative imports of the modules.
type staticFiles struct {
	prefix string // "/static/3f2a.../"
	files  map[string][]byte
}

// kinds are the content types of what lies in static/; anything else is not served.
var kinds = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

func loadStatic() *staticFiles {
	s := &staticFiles{files: map[string][]byte{}}
	sum := sha256.New()
	err := fs.WalkDir(staticFS, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := staticFS.ReadFile(name)
		if err != nil {
			return err
		}
		sum.Write([]byte(name + "\x00"))
		sum.Write(b)
		s.files[strings.TrimPrefix(name, "static/")] = b
		return nil
	})
	if err != nil {
		panic("console: embedded files: " + err.Error())
	}
	s.prefix = staticRoot + hex.EncodeToString(sum.Sum(nil)[:6]) + "/"
	return s
}

func (s *staticFiles) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutPrefix(r.URL.Path, s.prefix)
	b, found := s.files[name]
	kind := kinds[path.Ext(name)]
	if !ok || !found || kind == "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Write(b)
}
