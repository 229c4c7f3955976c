package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// Origin is where an effective value comes from. The zero Origin: the default.
type Origin struct {
	File string
	Line int // from 1
}

// String is "default" or "agent.yaml:14".
func (o Origin) String() string {
	if o.File == "" {
		return "default"
	}
	return o.File + ":" + strconv.Itoa(o.Line)
}

// Setting is one effective value.
type Setting struct {
	Path   string // "people[2].last_day"
	Value  string // as it would be written in YAML; "[]" for an empty list
	Origin Origin

	key string // row in the table
}

// Change is one difference between two settings.
type Change struct {
	Path    string
	Old     string // "" where it is new
	New     string // "" where it is gone
	Restart bool   // takes effect at the next start only
}

// String is `log.level: "info" -> "debug"`.
func (c Change) String() string {
	show := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	return c.Path + ": " + show(c.Old) + " -> " + show(c.New)
}

// Settings is every effective value, in the order of the documents; entries of
// lists one by one.
func (a *Agent) Settings() []Setting { return a.flatten(reflect.ValueOf(a).Elem(), "", "", nil) }

// Settings is every effective value, in the order of the documents.
func (c *Console) Settings() []Setting { return c.flatten(reflect.ValueOf(c).Elem(), "", "", nil) }

// Diff is what changed from old to new, in the order of the documents. Entries
// of lists are compared by their position.
func (a *Agent) Diff(old *Agent) []Change { return diff(old.Settings(), a.Settings(), agentKeys) }

// Diff is what changed from old to new, in the order of the documents.
func (c *Console) Diff(old *Console) []Change {
	return diff(old.Settings(), c.Settings(), consoleKeys)
}

func diff(was, now []Setting, keys []Key) []Change {
	restart := map[string]bool{}
	for i := range keys {
		restart[keys[i].Path] = keys[i].Restart
	}
	before := map[string]string{}
	for _, s := range was {
		before[s.Path] = s.Value
	}
	var out []Change
	after := map[string]bool{}
	for _, s := range now {
		after[s.Path] = true
		if v, there := before[s.Path]; !there || v != s.Value {
			out = append(out, Change{Path: s.Path, Old: v, New: s.Value, Restart: restart[s.key]})
		}
	}
	for _, s := range was {
		if !after[s.Path] {
			out = append(out, Change{Path: s.Path, Old: s.Value, Restart: restart[s.key]})
		}
	}
	return out
}

// flatten lists the values below v.
func (s *source) flatten(v reflect.Value, path, key string, out []Setting) []Setting {
	switch {
	case v.Kind() == reflect.Struct:
		for _, f := range fields(v.Type()) {
			out = s.flatten(v.Field(f.index), join(path, f.name), join(key, f.name), out)
		}
	case v.Kind() == reflect.Map:
		keys := slices.Sorted(maps.Keys(v.Interface().(map[string]map[string]int64)))
		for _, k := range keys {
			inner := v.MapIndex(reflect.ValueOf(k))
			for _, name := range slices.Sorted(maps.Keys(inner.Interface().(map[string]int64))) {
				at := join(join(path, k), name)
				out = append(out, Setting{at, yamlText(inner.MapIndex(reflect.ValueOf(name))), s.origin(at), join(key, "*.*")})
			}
		}
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct && v.Len() > 0:
		for i := range v.Len() {
			out = s.flatten(v.Index(i), fmt.Sprintf("%s[%d]", path, i), key+"[]", out)
		}
	default:
		out = append(out, Setting{path, yamlText(v), s.origin(path), key})
	}
	return out
}

func (s *source) origin(path string) Origin {
	if pl, ok := s.places[path]; ok {
		return Origin{s.file, pl.line}
	}
	return Origin{}
}

// yamlText is a value as it would be written in YAML, on one line.
func yamlText(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return FormatDuration(x)
	case Size:
		return x.String()
	case Clock:
		return strconv.Quote(x.String())
	case Date:
		if x == "" {
			return `""`
		}
		return string(x)
	}
	switch v.Kind() {
	case reflect.Slice:
		b := []byte{'['}
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(b, yamlText(v.Index(i))...)
		}
		return string(append(b, ']'))
	case reflect.String:
		return strconv.Quote(v.String())
	}
	return fmt.Sprint(v.Interface())
}
