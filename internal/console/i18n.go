package console

import (
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"math"
	"net/url"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"sekisho/internal/endpoint"
)

//go:embed lang/*.json
var langFS embed.FS

//go:embed templates
var templateFS embed.FS

// languages are those of the catalogues, the default first.
var languages = []string{"ja", "en"}

// printer says things in one language: texts of the catalogue, numbers, times,
// and the pages, whose templates are bound to it.
type printer struct {
	lang  string
	loc   *time.Location
	cat   map[string]string             // text by key
	pages map[string]*template.Template // by name of the file in templates/pages
}

// newPrinter reads a language's catalogue and parses the templates for it.
// static is the prefix of the static files.
func newPrinter(lang string, loc *time.Location, static string) *printer {
	p := &printer{lang: lang, loc: loc, pages: map[string]*template.Template{}}
	b, err := langFS.ReadFile("lang/" + lang + ".json")
	if err == nil {
		err = json.Unmarshal(b, &p.cat)
	}
	if err != nil {
		panic(fmt.Sprintf("console: catalogue %s: %v", lang, err))
	}
	base := template.New("base").Funcs(template.FuncMap{
		"t":          p.t,
		"n":          p.n,
		"number":     p.number,
		"bytes":      p.bytes,
		"bdi":        p.bdi,
		"long":       p.block,
		"plain":      func(s string) string { return p.plain(s, lineText) },
		"when":       p.when,
		"full":       p.whenFull,
		"span":       p.span,
		"static":     func(name string) string { return static + name },
		"path":       url.PathEscape,
		"themes":     func() []string { return []string{"light", "auto", "dark"} },
		"unumber":    func(n uint64) string { return p.number(int64(min(n, math.MaxInt64))) },
		"clocktime":  p.clockTime,
		"listname":   func(s string) string { return p.word("value.sekisho.person.lists."+s, s) },
		"sensorname": func(s string) string { return p.word("sensor."+s, s) },
		"initial": func(s string) string {
			r, _ := utf8.DecodeRuneInString(s)
			return string(r) // upper case is the style sheet's
		},
		"sensoricon": func(state string) string {
			switch endpoint.SensorState(state) {
			case endpoint.SensorDown:
				return "down-state" // "down" is the arrow of a download
			case endpoint.SensorLimited:
				return string(endpoint.SensorOK)
			case endpoint.SensorUnavailable:
				return string(endpoint.SensorOff)
			}
			return state
		},
	}).Option("missingkey=error")
	template.Must(base.ParseFS(templateFS, "templates/base.html", "templates/parts/*.html"))
	files, err := fs.Glob(templateFS, "templates/pages/*.html")
	if err != nil {
		panic("console: templates: " + err.Error())
	}
	for _, f := range files {
		t := template.Must(template.Must(base.Clone()).ParseFS(templateFS, f))
		p.pages[strings.TrimSuffix(path.Base(f), ".html")] = t
	}
	return p
}

// t is the catalogue's text for a key, with args put in as by fmt. A missing key
// shows itself in brackets, which the tests look for.
func (p *printer) t(key string, args ...any) string {
	text, ok := p.cat[key]
	if !ok {
		return "⟦" + key + "⟧"
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// has reports whether the catalogue has a key.
func (p *printer) has(key string) bool { _, ok := p.cat[key]; return ok }

// word is the catalogue's text for a key, else the text from outside itself.
func (p *printer) word(key, otherwise string) string {
	if p.has(key) {
		return p.t(key)
	}
	return p.plain(otherwise, 60)
}
