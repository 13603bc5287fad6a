/* A module for Windows that calls Python, the CUDA runtime and torch, as a compiled plugin does.
 *
 * The test has no Python headers for Windows, so the structures of Python's stable ABI are declared here.
 */

typedef struct object Object;
typedef Object *(*Function)(Object *, Object *);

typedef struct {
    const char *name;
    Function function;
    int flags;
    const char *doc;
} Method;

typedef struct {
    long long references;
    void *type, *init;
    long long index;
    void *copy;
    const char *name, *doc;
    long long size;
    Method *methods;
    void *slots, *traverse, *clear, *free;
} Definition;

Object *PyModule_Create2(Definition *, int);
Object *PyLong_FromLong(long);
int cudaGetDeviceCount(int *);
int cudaRuntimeGetVersion(int *);
_Bool c10_warns_always(void);
_Bool torch_lifts_cpu_tensors(void);

/* Return the version of the CUDA runtime, or -1 if the call fails. */
static Object *version(Object *self, Object *none)
{
    int number = 0;
    return PyLong_FromLong(cudaRuntimeGetVersion(&number) ? -1 : number);
}

/* Return the error code of the CUDA runtime's query for devices. */
static Object *devices(Object *self, Object *none)
{
    int count = 0;
    return PyLong_FromLong(cudaGetDeviceCount(&count));
}

/* Return the state of two settings of torch as a sum: 2 for the first, 1 for the second. */
static Object *torch(Object *self, Object *none)
{
    return PyLong_FromLong(2 * c10_warns_always() + torch_lifts_cpu_tensors());
}

static Method methods[] = {
    {"version", version, 4, ""}, {"devices", devices, 4, ""}, {"torch", torch, 4, ""}, {0, 0, 0, 0}};
static Definition definition = {.references = 1, .name = "nvdiffrast_plugin", .size = -1, .methods = methods};

__declspec(dllexport) Object *PyInit_nvdiffrast_plugin(void)
{
    return PyModule_Create2(&definition, 1013);
}
