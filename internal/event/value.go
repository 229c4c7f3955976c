package event

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Type is the type of a field or value.
type Type uint8

// The types.
const (
	None   Type = iota // of the zero Value
	String             // text
	Int                // 64-bit signed
	Float              // recorded fields outside the table only
	Bool
	Time // nanoseconds, UTC
	List // of text
)

var typeNames = [...]string{"none", "text", "whole number", "number", "true or false", "time", "list of text"}

// String is the type in words, for messages.
func (t Type) String() string { return typeNames[t] }

// Value is a field's value. The zero Value is no value. Values are small and
// copied; a list is shared with the event and must not be written to.
type Value struct {
	typ  Type
	n    uint64 // Int, Float, Bool, Time
	s    string
	list []string
}

// Text, Number, Real, Truth, Moment and Texts make values.
func Text(s string) Value        { return Value{typ: String, s: s} }
func Number(n int64) Value       { return Value{typ: Int, n: uint64(n)} }
func Real(f float64) Value       { return Value{typ: Float, n: math.Float64bits(f)} }
func Moment(t time.Time) Value   { return Value{typ: Time, n: uint64(t.UnixNano())} }
func Texts(list ...string) Value { return Value{typ: List, list: list} }
func Truth(b bool) Value {
	if b {
		return Value{typ: Bool, n: 1}
	}
	return Value{typ: Bool}
}

// Type is the value's type, None for the zero Value.
func (v Value) Type() Type { return v.typ }

// Str is the text of a String value, else "".
func (v Value) Str() string { return v.s }

// Int is the number of an Int value, or a Float cut to a whole one, else 0.
func (v Value) Int() int64 {
	switch v.typ {
	case Int, Time:
		return int64(v.n)
	case Float:
		return int64(math.Float64frombits(v.n))
	}
	return 0
}

// Float is the number of an Int or Float value; ok is false for other types.
func (v Value) Float() (f float64, ok bool) {
	switch v.typ {
	case Int:
		return float64(int64(v.n)), true
	case Float:
		return math.Float64frombits(v.n), true
	}
	return 0, false
}

// Bool is the truth of a Bool value, else false.
func (v Value) Bool() bool { return v.typ == Bool && v.n == 1 }

// Time is the time of a Time value, else the zero time.
func (v Value) Time() time.Time {
	if v.typ != Time {
		return time.Time{}
	}
	return time.Unix(0, int64(v.n)).UTC()
}

// List is the elements of a List value, else nil. The caller must not write to it.
func (v Value) List() []string { return v.list }

// Len is the number of texts in the value: a list's length, else 1, and 0 for
// the zero Value.
func (v Value) Len() int {
	switch v.typ {
	case None:
		return 0
	case List:
		return len(v.list)
	}
	return 1
}

// String is the value as text: numbers in decimal, true or false, times in RFC
// 3339, lists joined by ", ".
func (v Value) String() string {
	switch v.typ {
	case String:
		return v.s
	case Int:
		return strconv.FormatInt(int64(v.n), 10)
	case Float:
		return strconv.FormatFloat(math.Float64frombits(v.n), 'g', -1, 64)
	case Bool:
		return strconv.FormatBool(v.n == 1)
	case Time:
		return v.Time().Format(time.RFC3339Nano)
	case List:
		return strings.Join(v.list, ", ")
	}
	return ""
}

// Equal reports whether both are the same value of the same type.
func (v Value) Equal(w Value) bool {
	if v.typ != w.typ || v.n != w.n || v.s != w.s || len(v.list) != len(w.list) {
		return false
	}
	for i := range v.list {
		if v.list[i] != w.list[i] {
			return false
		}
	}
	return true
}
