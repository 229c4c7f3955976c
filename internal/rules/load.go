package rules

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"sekisho/internal/input"
	"sekisho/internal/problem"
	"sekisho/internal/rules/pack"
)

// LoadOptions say which rules to load.
type LoadOptions struct {
	Builtin bool     // the shipped rules
	Paths   []string // files and folders; of a folder, every *.yml and *.yaml below it
	Options
}

// maxFiles and maxLoad bound what a folder may make us read. Judgement: the
// whole of SigmaHQ is 4,000 files and 9 MB.
const (
	maxFiles = 20_000
	maxLoad  = 128 << 20 // bytes
)

// Load reads and compiles rules. The error is [Problems], all of them; the
// program is returned even then and holds the rules that are right: "check"
// refuses, "replay" names the refused ones and runs the rest.
func Load(o LoadOptions) (*Program, error) {
	var files []*File
	var problems Problems
	if o.Builtin {
		list, err := ParseBuiltin()
		if err != nil {
			problems = append(problems, asProblems(err)...)
		}
		files = append(files, list...)
	}
	list, err := ParsePaths(o.Paths)
	if err != nil {
		problems = append(problems, asProblems(err)...)
	}
	files = append(files, list...)
	p, err := Compile(files, o.Options)
	if err != nil {
		problems = append(problems, asProblems(err)...)
	}
	if len(problems) > 0 {
		return p, problem.Sorted(problems)
	}
	return p, nil
}

func asProblems(err error) Problems {
	var ps Problems
	if errors.As(err, &ps) {
		return ps
	}
	return Problems{{Code: CodeRead, JA: err.Error(), EN: err.Error()}}
}

// ParsePaths parses files and folders. The error is [Problems].
func ParsePaths(paths []string) ([]*File, error) {
	var files []*File
	var problems Problems
	seen := map[string]bool{}
	total := int64(0)
	unreadable := func(name string, err error) {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		problems = append(problems, Problem{File: name, Code: CodeRead, JA: "読めません: " + err.Error(), EN: "cannot be read: " + err.Error()})
	}
	add := func(name string) {
		if abs, err := filepath.Abs(name); err == nil {
			if seen[abs] {
				return
			}
			seen[abs] = true
		}
		if len(files) >= maxFiles || total > maxLoad {
			return
		}
		data, err := input.ReadFile(name, MaxFile+1) // a little more than Parse takes: it tells what is too large
		if err != nil {
			unreadable(name, err)
			return
		}
		total += int64(len(data))
		f, err := Parse(name, data)
		if err != nil {
			problems = append(problems, asProblems(err)...)
		}
		files = append(files, f)
	}
	for _, p := range paths {
		info, err := os.Stat(p)
		switch {
		case err != nil:
			unreadable(p, err)
		case !info.IsDir():
			add(p)
		default:
			found, err := below(os.DirFS(p))
			if err != nil {
				unreadable(p, err)
			}
			for _, name := range found {
				add(filepath.Join(p, filepath.FromSlash(name)))
			}
		}
	}
	if len(files) >= maxFiles || total > maxLoad {
		problems = append(problems, Problem{Code: CodeBounds, JA: fmt.Sprintf("ルールのファイルが多すぎます（上限は %d 個、%d バイト）", maxFiles, maxLoad),
			EN: fmt.Sprintf("too many rule files: the limits are %d files and %d bytes", maxFiles, maxLoad)})
	}
	if len(problems) > 0 {
		return files, problems
	}
	return files, nil
}

// below lists the rule files of a folder, sorted. Folders named "tests" hold
// rule tests, and names that begin with a dot are an editor's business.
func below(fsys fs.FS) ([]string, error) {
	var out []string
	err := fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != "." && (name == "tests" || strings.HasPrefix(name, ".")) {
				return fs.SkipDir
			}
			return nil
		}
		if ext := strings.ToLower(filepath.Ext(name)); !strings.HasPrefix(name, ".") && (ext == ".yml" || ext == ".yaml") && len(out) <= maxFiles {
			out = append(out, path)
		}
		return nil
	})
	sort.Strings(out)
	return out, err
}

// AsBuiltin makes the rules of a file count as shipped ones, before it is compiled:
// of a copy of theirs.
func (f *File) AsBuiltin() {
	for _, d := range f.docs {
		d.builtin = true
	}
}

// ParseBuiltin parses the shipped rules; their names begin with "builtin:".
func ParseBuiltin() ([]*File, error) {
	names, err := below(pack.FS)
	if err != nil {
		return nil, err
	}
	var files []*File
	var problems Problems
	for _, name := range names {
		data, err := fs.ReadFile(pack.FS, name)
		if err != nil {
			return nil, err
		}
		f, err := Parse("builtin:"+name, data)
		if err != nil {
			problems = append(problems, asProblems(err)...)
		}
		f.AsBuiltin()
		files = append(files, f)
	}
	if len(problems) > 0 {
		return files, problems
	}
	return files, nil
}
