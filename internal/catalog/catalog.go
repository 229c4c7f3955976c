// Package catalog knows remote-access tools: facts about some 260 programs that
// let others into a PC (tools.json, embedded), and which of them a process is.
//
// A process is told by what it carries along even when it was renamed (version
// resource, signer), by its file name with the decorations that downloads have
// ("AnyDesk (1).exe", "anydesk-6.2.1-amd64"), or by the folder it is installed
// in. Weak evidence (a vendor who makes harmless programs too, a general word)
// counts only together with other evidence of the same tool. SSH clients,
// viewers and other neighbours are never told as remote access.
//
// Where the facts are from: SOURCES.md.
package catalog

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"sekisho/internal/event"
)

// Tool is one program of the catalogue. It is shared and must not be written to.
type Tool struct {
	ID       string   `json:"id"`   // "anydesk"
	Name     string   `json:"name"` // "AnyDesk"
	Also     []string `json:"also_listed_as"`
	Category string   `json:"category"` // rmm, remote-desktop, tunnel ...

	// Controls is true where running it lets others into this machine. The
	// others are neighbours, which Match and MatchDomain never answer.
	Controls bool     `json:"controls_this_host"`
	OS       []string `json:"os"` // as far as the sources say

	WindowsExecutables   []string `json:"windows_executables"`
	LinuxExecutables     []string `json:"linux_executables"`
	ExecutableGlobs      []string `json:"executable_globs"`
	AmbiguousExecutables []string `json:"ambiguous_executables"`
	Folders              []string `json:"folders"`
	WeakFolders          []string `json:"weak_folders"`
	OriginalFileNames    []string `json:"original_file_names"`
	Products             []string `json:"products"`
	WeakProducts         []string `json:"weak_products"`
	Companies            []string `json:"companies"`
	Signers              []string `json:"signers"`
	WeakSigners          []string `json:"weak_signers"`
	Domains              []string `json:"domains"`
	BroadDomains         []string `json:"broad_domains"`

	ScamEvidence string   `json:"scam_evidence"` // "reported", "named-without-source" or ""
	ScamSources  []string `json:"scam_sources"`
}

// How says by what a process was recognised, strongest first.
type How string

// The kinds of evidence.
const (
	ByOriginalName How = "original-file-name"
	ByProduct      How = "product"
	ByName         How = "file-name"
	BySigner       How = "signer"
	ByDownloadName How = "download-name" // a known name with a version, counter, language ...
	ByGlob         How = "file-name-pattern"
	ByFolder       How = "folder"
	ByArgument     How = "argument" // what an interpreter or installer was given to run
	ByTogether     How = "together" // two kinds of weak evidence
)

//go:embed tools.json
var toolsJSON []byte

// Catalog is the tools and the indexes to find them by. It is immutable and safe
// for concurrent use.
type Catalog struct {
	tools []Tool
	byID  map[string]*Tool

	// Keys are in lower case, file names without .exe.
	names     map[string]*Tool // neighbours too
	ambiguous map[string][]*Tool
	originals map[string]*Tool
	signers   map[string]*Tool
	domains   map[string]*Tool

	paths   *finder // folders, weak folders and the beginnings of globs
	words   *finder // products, weak products
	vendors *finder // companies, weak signers
}

// Load is the embedded catalogue, parsed once.
var Load = sync.OnceValue(func() *Catalog {
	var tools []Tool
	if err := json.Unmarshal(toolsJSON, &tools); err != nil {
		panic("catalog: embedded tools.json: " + err.Error()) // a test loads it
	}
	return build(tools)
})

// All is every tool, neighbours included, by id. The caller must not write to it.
func (c *Catalog) All() []Tool { return c.tools }

// ByID finds a tool, neighbours included.
func (c *Catalog) ByID(id string) (*Tool, bool) {
	t, ok := c.byID[id]
	return t, ok
}

// IDs is the ids of the tools that let others in, sorted: what can be approved.
func (c *Catalog) IDs() []string {
	var ids []string
	for i := range c.tools {
		if c.tools[i].Controls {
			ids = append(ids, c.tools[i].ID)
		}
	}
	return ids
}

// What a pattern found within a path or a vendor's words means.
type mark struct {
	tool *Tool
	kind kind
	tail string // of a glob: how the name has to end
}

type kind uint8

const (
	folder kind = iota
	weakFolder
	glob
	product
	weakProduct
	company
	weakSigner
)

// build makes the indexes. Of two tools with the same strong evidence the first
// has it.
func build(tools []Tool) *Catalog {
	slices.SortFunc(tools, func(a, b Tool) int { return strings.Compare(a.ID, b.ID) })
	c := &Catalog{tools: tools, byID: map[string]*Tool{}, names: map[string]*Tool{}, ambiguous: map[string][]*Tool{},
		originals: map[string]*Tool{}, signers: map[string]*Tool{}, domains: map[string]*Tool{}}
	first := func(m map[string]*Tool, key string, t *Tool) {
		if _, taken := m[key]; !taken {
			m[key] = t
		}
	}
	var paths, words, vendors []pattern
	for i := range tools {
		t := &tools[i]
		c.byID[t.ID] = t
		for _, n := range slices.Concat(t.WindowsExecutables, t.LinuxExecutables) {
			first(c.names, strings.TrimSuffix(n, ".exe"), t)
		}
		if !t.Controls {
			continue
		}
		for _, n := range t.AmbiguousExecutables {
			n = strings.TrimSuffix(n, ".exe")
			c.ambiguous[n] = append(c.ambiguous[n], t)
		}
		for _, n := range t.OriginalFileNames {
			first(c.originals, strings.TrimSuffix(n, ".exe"), t)
		}
		for _, s := range t.Signers {
			first(c.signers, string(lower(make([]byte, 0, len(s)), s)), t)
		}
		for _, d := range t.Domains {
			first(c.domains, d, t)
		}
		for _, f := range t.Folders {
			paths = append(paths, pattern{f, mark{t, folder, ""}})
		}
		for _, f := range t.WeakFolders {
			paths = append(paths, pattern{f, mark{t, weakFolder, ""}})
		}
		for _, g := range t.ExecutableGlobs {
			head, tail, ok := strings.Cut(g, "*")
			if !ok || strings.Contains(tail, "*") {
				panic(fmt.Sprintf("catalog: %s: pattern %q needs one *", t.ID, g))
			}
			paths = append(paths, pattern{"/" + head, mark{t, glob, strings.TrimSuffix(tail, ".exe")}})
		}
		for _, p := range t.Products {
			words = append(words, pattern{p, mark{t, product, ""}})
		}
		for _, p := range t.WeakProducts {
			words = append(words, pattern{p, mark{t, weakProduct, ""}})
		}
		for _, p := range t.Companies {
			vendors = append(vendors, pattern{p, mark{t, company, ""}})
		}
		for _, p := range t.WeakSigners {
			vendors = append(vendors, pattern{p, mark{t, weakSigner, ""}})
		}
	}
	// What a tool shares with a neighbour ("connect.exe") is left to the weak evidence.
	for n, t := range c.names {
		if !t.Controls && c.ambiguous[n] != nil {
			delete(c.names, n)
		}
	}
	c.paths, c.words, c.vendors = newFinder(paths), newFinder(words), newFinder(vendors)
	return c
}

// maxName is the longest file name looked at, in bytes: NAME_MAX of Linux; the
// 255 UTF-16 units of Windows may be more, but no tool's name is.
const maxName = 255

// Match answers which remote-access tool a process is, and by what it was
// recognised; nil if it is none. It does not allocate.
func (c *Catalog) Match(p *event.Process) (*Tool, How) {
	if p == nil {
		return nil, ""
	}
	exe := p.Executable
	if exe == "" {
		exe = p.Name
	}
	var buf [maxName]byte
	base := lower(buf[:0], baseName(exe))
	stem := trimExtension(base)

	// What the file says of itself goes before how it is called.
	var found weak
	if pe := p.PE; pe != nil {
		if t := c.original(pe.OriginalFileName); t != nil {
			return t, ByOriginalName
		}
		if t := c.product(pe.Product, &found); t != nil {
			return t, ByProduct
		}
		c.vendor(pe.Company, company, &found)
	}
	if p.Signer != "" {
		if t := c.signer(p.Signer); t != nil {
			return t, BySigner
		}
		c.vendor(p.Signer, weakSigner, &found)
	}

	t, how := c.name(base, stem)
	if t != nil {
		if t.Controls {
			return t, how
		}
		return nil, "" // a neighbour: a viewer in a tool's folder stays a viewer
	}
	if t, how := c.path(exe, stem, &found); t != nil {
		return t, how
	}
	if t := c.together(stem, &found); t != nil {
		return t, ByTogether
	}
	if t := c.argument(stem, p); t != nil {
		return t, ByArgument
	}
	return nil, ""
}

// MatchDomain answers which remote-access tool contacts a domain or one above it.
func (c *Catalog) MatchDomain(domain string) (*Tool, bool) {
	var buf [maxName]byte
	d := lower(buf[:0], strings.TrimSuffix(domain, "."))
	for from := 0; ; {
		if t, ok := c.domains[string(d[from:])]; ok {
			return t, true
		}
		dot := slices.Index(d[from:], '.')
		if dot < 0 {
			return nil, false
		}
		from += dot + 1
	}
}

func (c *Catalog) original(name string) *Tool {
	if name == "" {
		return nil
	}
	var buf [maxName]byte
	b := lower(buf[:0], name)
	if t, ok := c.originals[string(b)]; ok {
		return t
	}
	return c.originals[string(trimExtension(b))]
}

// signer looks for the whole subject, and for its CN and O where it is a
// distinguished name ("CN=AnyDesk Software GmbH, O=...").
func (c *Catalog) signer(subject string) *Tool {
	var buf [maxName]byte
	s := lower(buf[:0], subject)
	if t, ok := c.signers[string(s)]; ok {
		return t
	}
	for from := 0; from < len(s); {
		eq := slices.Index(s[from:], '=')
		if eq < 0 {
			return nil
		}
		value := s[from+eq+1:]
		var end int
		if len(value) > 0 && value[0] == '"' {
			value = value[1:]
			end = slices.Index(value, '"')
		} else {
			end = slices.Index(value, ',')
			// "O=ConnectWise, LLC" without quotes: try up to the next "X=".
			if next := slices.Index(value, '='); next > 0 {
				if comma := lastIndex(value[:next], ','); comma > end {
					if t, ok := c.signers[string(value[:comma])]; ok {
						return t
					}
				}
			} else if t, ok := c.signers[string(value)]; ok {
				return t
			}
		}
		if end < 0 {
			end = len(value)
		}
		if t, ok := c.signers[string(value[:end])]; ok {
			return t
		}
		from = len(s) - len(value) + end
	}
	return nil
}

func lastIndex(b []byte, x byte) int {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] == x {
			return i
		}
	}
	return -1
}

// weak is the weak evidence about one process: kind by kind, which tools it
// speaks for. Bounded; what does not fit is not needed to find a pair.
type weak struct {
	n     int
	marks [8]mark
}

func (w *weak) add(t *Tool, k kind) {
	if w.n < len(w.marks) {
		w.marks[w.n] = mark{tool: t, kind: k}
		w.n++
	}
}

// product looks for products as whole words.
func (c *Catalog) product(s string, found *weak) (best *Tool) {
	if s == "" {
		return nil
	}
	c.words.find(s, func(m *mark, from, to int) bool {
		if !wholeWord(s, from, to) {
			return true
		}
		if m.kind == product {
			best = m.tool
			return false
		}
		found.add(m.tool, weakProduct)
		return true
	})
	return best
}

func (c *Catalog) vendor(s string, k kind, found *weak) {
	if s == "" {
		return
	}
	c.vendors.find(s, func(m *mark, from, to int) bool {
		if m.kind == k && wholeWord(s, from, to) {
			found.add(m.tool, k)
		}
		return true
	})
}

// wholeWord reports whether s[from:to] has no letter or digit next to it.
func wholeWord(s string, from, to int) bool {
	word := func(b byte) bool { return b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'z' || b >= 0x80 }
	return (from == 0 || !word(s[from-1]) || !word(s[from])) && (to == len(s) || !word(s[to]) || !word(s[to-1]))
}

// name looks for the file name as it is, then without what downloads add to it.
func (c *Catalog) name(base, stem []byte) (*Tool, How) {
	if t, ok := c.names[string(base)]; ok {
		return t, ByName
	}
	if t, ok := c.names[string(stem)]; ok {
		return t, ByName
	}
	for rest := stem; ; {
		shorter := undecorate(rest)
		if len(shorter) == len(rest) || len(shorter) < minDecorated {
			return nil, ""
		}
		rest = shorter
		if t, ok := c.names[string(rest)]; ok {
			return t, ByDownloadName
		}
	}
}

// minDecorated is the shortest name that is looked for with decorations cut
// off: "frpc-2" is rather something else. Judgement.
const minDecorated = 5

// path looks for folders and globs in one pass over the path.
func (c *Catalog) path(exe string, stem []byte, found *weak) (best *Tool, how How) {
	start := len(exe) - len(baseName(exe))
	windows := windowsPath(exe)
	c.paths.findPath(exe, func(m *mark, from, to int) bool {
		switch m.kind {
		case glob:
			if from == start-1 && isProgram(exe) && hasSuffix(stem, m.tail) && !contains(stem, "viewer") {
				best, how = m.tool, ByGlob
				return false
			}
		case folder:
			if to <= start && installed(exe, windows) && !hasPrefix(stem, "unins") {
				best, how = m.tool, ByFolder
			}
		case weakFolder:
			if to <= start && installed(exe, windows) {
				found.add(m.tool, weakFolder)
			}
		}
		return true
	})
	return best, how
}

// together looks for a tool that two kinds of weak evidence speak for. Company
// and signer are one kind: both only name the vendor.
func (c *Catalog) together(stem []byte, found *weak) *Tool {
	if found.n == 0 {
		return nil
	}
	general := c.ambiguous[string(stem)]
	for i := range found.n {
		m := &found.marks[i]
		if slices.Contains(general, m.tool) {
			return m.tool
		}
		for j := range i {
			o := &found.marks[j]
			if o.tool == m.tool && o.kind != m.kind && !(o.kind >= company && m.kind >= company) {
				return m.tool
			}
		}
	}
	return nil
}
